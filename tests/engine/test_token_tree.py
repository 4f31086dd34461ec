"""A tree of continuations compared with a pass over each whole sequence."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from engine import node_logits, token_tree
from engine.errors import Cancelled
from engine.key_values import KeyValues, PromptMemory
from engine.models.diffusion_gemma import DiffusionGemma
from engine.models.packed import pack
from engine.prefix_cache import PrefixCache
from engine.token_tree import TokenTree
from tests.engine.tiny import count_passes, ours, reference

PROMPT = [5, 17, 9, 40, 3, 22, 8, 31, 12, 6, 25, 14]  # longer than the window of the sliding layers
TRUNK = [33, 4, 18]
BRANCHES = [[7, 9, 11, 30, 2, 8, 8, 41, 60, 3], [7, 9, 50, 51], [7, 9, 11], [70], []]


@pytest.fixture(scope="module", params=["plain", "packed"])
def model(request: pytest.FixtureRequest) -> DiffusionGemma:
    model = ours(reference())
    return pack(model) if request.param == "packed" else model


@pytest.fixture
def kv(model: DiffusionGemma) -> KeyValues:
    return PrefixCache(model).acquire(PROMPT).kv


@torch.inference_mode()
def whole(model: DiffusionGemma, tokens: Sequence[int]) -> torch.Tensor:
    """log p [tokens, vocab] of the token after each of `tokens`."""
    memory = PromptMemory(KeyValues(model.config, torch.device("cpu"), torch.float32), len(tokens))
    hidden = model.encode(torch.tensor([tokens]), memory.positions(), memory.masks(), memory)[0]
    return torch.log_softmax(model.logits(hidden), -1)


def test_every_branch_is_read_as_if_it_stood_alone(model: DiffusionGemma, kv: KeyValues) -> None:
    with TokenTree(model, kv, TRUNK) as tree:
        tree.read(BRANCHES)
        for branch in BRANCHES:
            expected = whole(model, [*PROMPT, *TRUNK, *branch])[len(PROMPT) + len(TRUNK) - 1 :]
            found = tree.log_probabilities(branch)
            assert found.shape == (len(branch),)
            picked = expected[: len(branch)].gather(1, torch.tensor(branch, dtype=torch.long)[:, None])[:, 0]
            torch.testing.assert_close(found, picked, atol=1e-4, rtol=0)
            torch.testing.assert_close(tree.logits(branch).log_softmax(-1), expected[-1], atol=1e-4, rtol=0)


def test_what_is_read_later_sees_its_own_ancestors_alone(model: DiffusionGemma, kv: KeyValues) -> None:
    """In several passes, far beyond the initial capacity of the keys."""
    with TokenTree(model, kv, TRUNK) as tree:
        for length in range(1, 90):
            branch = [(7 * n) % 100 for n in range(length)]
            tree.read([branch, [*branch[:-1], 101]])
        expected = whole(model, [*PROMPT, *TRUNK, *branch])
        torch.testing.assert_close(tree.logits(branch).log_softmax(-1), expected[-1], atol=1e-4, rtol=0)
        assert tree.log_probability(branch, 5) == pytest.approx(float(expected[-1, 5]), abs=1e-4)


def test_a_token_is_read_once(model: DiffusionGemma, kv: KeyValues, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = count_passes(model, monkeypatch)
    with TokenTree(model, kv, TRUNK) as tree:
        assert not tree.has_read([])
        tree.read(BRANCHES)
        assert passes == [3 + 10 + 2 + 1]
        assert tree.has_read([]) and tree.has_read([7, 9, 50]) and not tree.has_read([7, 50])
        tree.read(BRANCHES)
        tree.log_probabilities(BRANCHES[0])
        assert len(passes) == 1
        tree.logits([7, 9, 50, 51, 52])
        assert passes[1:] == [1]


def test_in_the_end_the_prompt_is_as_it_was(model: DiffusionGemma, kv: KeyValues) -> None:
    keys = [buffer[:, :, : len(PROMPT)].clone() for buffer in kv.keys]
    with pytest.raises(ZeroDivisionError), TokenTree(model, kv, TRUNK) as tree:
        tree.read(BRANCHES)
        assert kv.length > len(PROMPT)
        raise ZeroDivisionError
    assert kv.length == len(PROMPT)
    assert all(torch.equal(buffer[:, :, : len(PROMPT)], old) for buffer, old in zip(kv.keys, keys, strict=True))


def test_without_a_trunk_nothing_says_what_comes_first(model: DiffusionGemma, kv: KeyValues) -> None:
    with TokenTree(model, kv, []) as tree:
        found = tree.log_probabilities([7, 9, 11])
    expected = whole(model, [*PROMPT, 7, 9, 11])[len(PROMPT) :]
    assert float(found[0]) == 0.0
    torch.testing.assert_close(found[1:], torch.stack((expected[0, 9], expected[1, 11])), atol=1e-4, rtol=0)


def test_it_may_be_stopped_before_every_pass(model: DiffusionGemma, kv: KeyValues) -> None:
    answers = iter([False, True])
    with pytest.raises(Cancelled), TokenTree(model, kv, TRUNK, lambda: next(answers)) as tree:
        tree.read([[7, 9]])
        tree.read([[7, 9]])
        tree.read([[8]])
    assert kv.length == len(PROMPT) and next(answers, None) is None


@pytest.fixture
def little(model: DiffusionGemma, monkeypatch: pytest.MonkeyPatch) -> int:
    """Reads at most 4 rows of logits at once and keeps twice as many; returns their bytes."""
    kept = 8 * model.embed_tokens.weight.shape[0] * 4
    monkeypatch.setattr(node_logits, "KEPT_BYTES", kept)
    monkeypatch.setattr(token_tree, "HEAD_ROWS", 4)
    return kept


def test_a_long_tree_keeps_a_bounded_number_of_bytes(model: DiffusionGemma, kv: KeyValues, little: int) -> None:
    with TokenTree(model, kv, TRUNK) as tree:
        for length in range(1, 60):
            branch = [(7 * n) % 100 for n in range(length)]
            tree.read([branch, [*branch[:-1], 101], [*branch[:-1], 102, 5, 9]])
            assert 0 < tree._rows.bytes <= little
        expected = whole(model, [*PROMPT, *TRUNK, *branch])[len(PROMPT) + len(TRUNK) - 1 :]
        for index in range(len(branch)):
            torch.testing.assert_close(tree.logits(branch[:index]).log_softmax(-1), expected[index], atol=1e-4, rtol=0)
            assert tree.log_probability(branch[:index], 77) == pytest.approx(float(expected[index, 77]), abs=1e-4)
        assert tree._rows.bytes <= little


def test_branches_are_scored_while_their_logits_are_kept(
    model: DiffusionGemma, kv: KeyValues, little: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    branches = [[(7 * n + start) % 100 for n in range(30)] for start in (1, 2, 3)]
    with TokenTree(model, kv, TRUNK) as tree:
        tree.read(branches)
        monkeypatch.setattr(model, "logits", None)  # not needed any more
        monkeypatch.setattr(tree._rows, "row", None)
        found = [tree.log_probabilities(branch) for branch in branches]
        monkeypatch.undo()
    for branch, one in zip(branches, found, strict=True):
        expected = whole(model, [*PROMPT, *TRUNK, *branch])[len(PROMPT) + len(TRUNK) - 1 :]
        picked = expected[: len(branch)].gather(1, torch.tensor(branch)[:, None])[:, 0]
        torch.testing.assert_close(one, picked, atol=1e-4, rtol=0)


def test_in_the_end_nothing_is_kept_even_if_an_error_refers_to_the_tree(model: DiffusionGemma, kv: KeyValues) -> None:
    with pytest.raises(ZeroDivisionError) as raised, TokenTree(model, kv, TRUNK) as tree:
        tree.read(BRANCHES)
        assert tree._rows.bytes > 0
        raise ZeroDivisionError
    assert raised.value.__traceback__ is not None
    assert tree._rows.bytes == 0 and tree._sees.nbytes == 0 and not tree._rows._hidden
