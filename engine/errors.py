"""The errors a user may see. Each message is one sentence that says what is wrong and what to do.

Must not know who shows them: the command line maps classes to exit codes, the editor to messages.
"""


class GessoError(Exception):
    """Base of every error whose message is meant for the user."""


class ModelError(GessoError):
    """A model folder, its weights, the memory or the device cannot be used."""


class InputError(GessoError):
    """A file or a request cannot be used."""


class UsageError(GessoError):
    """The command was given flags or arguments that do not fit together."""
