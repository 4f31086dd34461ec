"""Measurements of completion quality."""
