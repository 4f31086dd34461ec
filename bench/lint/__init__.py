"""Measurements of lint: held-out projects, released code, changes between releases, style."""
