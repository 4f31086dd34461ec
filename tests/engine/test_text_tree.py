"""The tree over a long text, compared with the one that keeps all logits."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from engine.decoder import Decoder
from engine.errors import Cancelled, Stop
from engine.text_tree import CHUNK, TextTree
from engine.token_tree import TokenTree
from tests.infill.tiny_coder import coder_tokens, random_model

PROMPT = [5, 9, 3]
TEXT = coder_tokens().encode("def f(a, b):\n    return a + b\n")
BRANCHES = [[*TEXT[:4], 7, 8, 9], [*TEXT[:4], 7, 6], TEXT]


@contextmanager
def tree(stop: Stop | None = None) -> Iterator[tuple[TextTree, TokenTree]]:
    decoder = Decoder(random_model())
    with decoder.cache.encoded(PROMPT[:-1]) as one, decoder.cache.encoded([*PROMPT[:-1]]) as other:
        with (
            TextTree(decoder.model, one.kv, PROMPT[-1:], stop) as text_tree,
            TokenTree(decoder.model, other.kv, PROMPT[-1:]) as token_tree,
        ):
            yield text_tree, token_tree
        assert one.kv.length == len(PROMPT) - 1


def test_scores_equal_those_of_a_token_tree() -> None:
    with tree() as (ours, other):
        ours.read([TEXT])
        ours.read(BRANCHES)
        other.read(BRANCHES)
        assert len(ours) == 1 + len(TEXT) + 4
        found = ours.branch_scores([(branch, 2) for branch in BRANCHES])
        for branch, scores in zip(BRANCHES, found, strict=True):
            assert scores == pytest.approx(other.log_probabilities(branch)[2:].tolist(), abs=1e-4)
        (alternatives,) = ours.scores([(TEXT, 4, [7, TEXT[4]])])
        assert alternatives == pytest.approx([found[0][2], found[2][2]], abs=1e-4)


def test_a_branch_need_not_be_read_to_its_end() -> None:
    with tree() as (ours, other):
        ours.read([TEXT[:-1]])
        (scores,) = ours.branch_scores([(TEXT, 0)])
        assert scores == pytest.approx(other.log_probabilities(TEXT).tolist(), abs=1e-4)


def test_reading_polls_between_short_passes() -> None:
    polls = 0

    def stop() -> bool:
        nonlocal polls
        polls += 1
        return polls > 2

    with tree(stop) as (ours, _), pytest.raises(Cancelled):
        ours.read([(TEXT * CHUNK)[: 3 * CHUNK]])
    assert polls == 3
