"""Servers that can answer a request instead of the service's own model: one file for each kind of server.

Must not know which one is used when; `infill.backends.router` decides that.
"""
