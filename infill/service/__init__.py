"""The resident service: the process, its engine, and the client that talks to it."""
