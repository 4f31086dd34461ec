"""Batches: the same for a step in every process, in order, and without leftovers."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import threading
import time
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.errors import InputError
from tests.train.prepared import TOKENIZER, write_prepared
from tests.train.windows import SMALL
from tests.waiting import PATIENCE_S
from train.data import BatchMaker, TokenFiles, in_background, pinned
from train.layout import LayoutConfig
from train.objective import DiffusionBatch


@pytest.fixture
def files(tmp_path: Path) -> tuple[TokenFiles, TokenFiles]:
    write_prepared(tmp_path, {"train": 8, "valid": 8}, lines=(20, 30))
    return TokenFiles(tmp_path, TOKENIZER, "train"), TokenFiles(tmp_path, TOKENIZER, "valid")


@pytest.fixture
def maker(files: tuple[TokenFiles, TokenFiles]) -> BatchMaker:
    return BatchMaker(files, SMALL, rows=3, seed=7)


def tensors(batch: Any) -> list[torch.Tensor]:
    return list(vars(batch).values()) if isinstance(batch, DiffusionBatch) else list(batch)


def same(ours: Any, theirs: Any) -> bool:
    return all(torch.equal(a, b) for a, b in zip(tensors(ours), tensors(theirs), strict=True))


@pytest.mark.parametrize("phase", ["causal", "diffusion"])
def test_a_batch_depends_on_seed_split_step_and_rank(maker: BatchMaker, phase: str) -> None:
    make = getattr(maker, phase)
    assert same(make(5), make(5))
    others = [
        make(6),
        make(5, 1),
        getattr(BatchMaker(maker.files, SMALL, 3, seed=8), phase)(5),
        getattr(BatchMaker(maker.files, SMALL, 3, seed=7, rank=1), phase)(5),
    ]
    assert not any(same(make(5), other) for other in others)


def test_a_causal_batch_is_as_wide_as_prompt_and_canvas(maker: BatchMaker) -> None:
    tokens, weight = BatchMaker(maker.files, LayoutConfig(prompt=60, canvas=20), 2, 0).causal(0)
    assert tokens.shape == weight.shape == (2, 80)


def test_open_files_are_pickled_by_name(files: tuple[TokenFiles, TokenFiles]) -> None:
    sent = pickle.dumps(files[0])
    assert len(sent) < 1000
    again = pickle.loads(sent)
    assert np.array_equal(again.file(3).tokens, files[0].file(3).tokens)
    assert np.array_equal(again.file(3).spans, files[0].file(3).spans)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("phase", ["causal", "diffusion"])
def test_batches_made_ahead_equal_batches_made_directly(maker: BatchMaker, phase: str, workers: int) -> None:
    make = getattr(maker, phase)
    batches = in_background(make, 4, workers)
    for step, batch in enumerate(islice(batches, 7), start=4):
        assert same(batch, make(step)), step
    batches.close()


def slowest_first(step: int) -> int:
    time.sleep(0.05 if step % 2 else 0)
    return step


def failing(wrong: type[Exception], step: int) -> int:
    if step == 7:
        raise wrong("no more")
    return step


@pytest.mark.parametrize("workers", [0, 2])
def test_a_slow_worker_does_not_change_the_order(workers: int) -> None:
    batches = in_background(slowest_first, 9, workers)
    assert list(islice(batches, 8)) == list(range(9, 17))
    batches.close()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("wrong", [InputError, ZeroDivisionError])
def test_an_error_is_raised_unchanged_after_the_steps_before_it(wrong: type[Exception], workers: int) -> None:
    batches = in_background(partial(failing, wrong), 4, workers)
    assert [next(batches) for _ in range(3)] == [4, 5, 6]
    with pytest.raises(wrong) as caught:
        next(batches)
    assert str(caught.value) == "no more"


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("taken", [1, 6])
def test_nothing_is_left_running_when_the_batches_are_dropped(maker: BatchMaker, workers: int, taken: int) -> None:
    threads, children = set(threading.enumerate()), set(multiprocessing.active_children())
    batches = in_background(maker.causal, 0, workers)
    for _ in range(taken):
        next(batches)
    assert set(threading.enumerate()) - threads
    assert len(set(multiprocessing.active_children()) - children) == workers
    del batches
    assert not set(multiprocessing.active_children()) - children
    for feeder in set(threading.enumerate()) - threads:  # threads of the queues to the workers end by themselves
        feeder.join(timeout=PATIENCE_S)
    assert not set(threading.enumerate()) - threads


def die(step: int) -> int:
    os._exit(1)


@pytest.mark.slow
def test_a_dead_worker_is_an_error_and_not_an_endless_wait() -> None:
    with pytest.raises(RuntimeError, match="worker"):
        next(in_background(die, 0, workers=1))


def test_pinning_does_not_change_a_batch(maker: BatchMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor.clone())
    for batch in (maker.causal(0), maker.diffusion(0)):
        locked = pinned(batch)
        assert type(locked) is type(batch) and same(locked, batch)
        assert all(a is not b for a, b in zip(tensors(locked), tensors(batch), strict=True))
