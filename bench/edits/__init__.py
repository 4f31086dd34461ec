"""Measurements of edits."""
