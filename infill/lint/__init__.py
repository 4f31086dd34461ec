"""Suspicious code: what is looked at, how it is judged, and how it is reported."""
