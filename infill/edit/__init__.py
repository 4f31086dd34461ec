"""Edits of code that is already written: rewrites by instruction."""
