"""Measurements of the service and the language server under load."""
