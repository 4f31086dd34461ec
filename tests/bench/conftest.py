"""Makes the fixtures of small_corpus available in this folder."""

from tests.train.small_corpus import completer, corpus  # noqa: F401
