"""`python -m infill` runs `gesso`."""

from gesso_launcher import gesso

gesso()
