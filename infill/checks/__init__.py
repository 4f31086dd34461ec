"""The checks that decide whether a completion is shown."""
