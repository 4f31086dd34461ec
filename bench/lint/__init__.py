"""Measurements of lint."""
