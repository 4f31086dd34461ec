"""`python -m infill` runs `gesso`."""

from infill.cli.main import main

main()
