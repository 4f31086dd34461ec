"""`python -m infill` is `gesso`."""

from infill.cli import main

main()
