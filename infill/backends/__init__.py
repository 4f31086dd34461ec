"""Other places than this service's own model where a request can be answered: one file for each kind of server.

Must not know when which of them is asked; that is `infill.backends.router`'s.
"""
