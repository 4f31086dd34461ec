"""Calibration of lint."""
