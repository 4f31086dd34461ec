"""The editor's words in, the editor's words out: the language server."""
