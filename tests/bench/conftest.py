"""Shares the small corpus and the shipped model with every test below this folder."""

from tests.train.small_corpus import completer, corpus  # noqa: F401
