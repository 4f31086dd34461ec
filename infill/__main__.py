"""`python -m infill` is `gesso`."""

from infill.cli.main import main

main()
