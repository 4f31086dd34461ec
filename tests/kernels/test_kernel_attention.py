"""Canvas attention compared with `engine.ops.attention.attend`, on slices of a cache."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from engine.kernels.attention import Cut, attend
from engine.ops import attention as reference

CUT = Cut(queries=16, keys=16, warps=4, stages=1)


def sliced(batch: int, heads: int, keys: int, dim: int) -> Tensor:
    """Part of a larger buffer surrounded by NaN, so that reading too far shows."""
    buffer = torch.full((batch, heads, keys + 9, dim), torch.nan)
    buffer[:, :, 4 : 4 + keys] = torch.randn(batch, heads, keys, dim)
    return buffer[:, :, 4 : 4 + keys]


@pytest.mark.parametrize("splits", [1, 4])
@pytest.mark.parametrize(
    ("batch", "heads", "kv_heads", "length", "keys", "dim"),
    [(1, 4, 2, 5, 37, 32), (2, 8, 1, 3, 70, 64), (1, 2, 2, 1, 1, 16), (1, 8, 1, 4, 40, 512), (1, 2, 1, 17, 33, 256)],
)
def test_every_query_sees_every_key(
    batch: int, heads: int, kv_heads: int, length: int, keys: int, dim: int, splits: int
) -> None:
    torch.manual_seed(0)
    query = torch.randn(batch, length, heads, dim).transpose(1, 2) / dim**0.5
    key, value = sliced(batch, kv_heads, keys, dim), sliced(batch, kv_heads, keys, dim)
    expected = reference.attend(query, key, value, None)
    torch.testing.assert_close(attend(query, key, value, None, CUT, splits), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("splits", [1, 2])
def test_masked_keys_count_for_nothing(splits: int) -> None:
    torch.manual_seed(1)
    query, key, value = torch.randn(2, 4, 6, 32), torch.randn(2, 2, 40, 32), torch.randn(2, 2, 40, 32)
    mask = torch.arange(40)[None] >= torch.tensor([[33], [5]])
    mask = mask[:, None, None]
    expected = reference.attend(query, key, value, mask)
    torch.testing.assert_close(attend(query, key, value, mask, CUT, splits), expected, atol=1e-5, rtol=1e-4)
    changed = torch.where(mask[:, 0, 0, :, None][:, None], key, 100 * torch.randn_like(key))
    torch.testing.assert_close(attend(query, changed, value, mask, CUT, splits), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("splits", [1, 4])
@pytest.mark.parametrize("spans", [[(17, 37), (60, 61)], [(0, 20), (50, 67)], [(5, 5), (66, 67)]], ids=str)
def test_keys_before_the_first_and_behind_the_last_are_not_read(spans: list[tuple[int, int]], splits: int) -> None:
    torch.manual_seed(4)
    query, key, value = torch.randn(2, 4, 3, 32), torch.randn(2, 2, 67, 32), torch.randn(2, 2, 67, 32)
    mask = torch.zeros(2, 1, 1, 67, dtype=torch.bool)
    for row, (first, end) in enumerate(spans):
        mask[row, ..., first:end] = True
        value[row, :, : first // CUT.keys * CUT.keys] = torch.nan
        value[row, :, end:] = torch.nan
    expected = reference.attend(query, key, value.nan_to_num(), mask).nan_to_num()
    torch.testing.assert_close(attend(query, key, value, mask, CUT, splits), expected, atol=1e-5, rtol=1e-4)


def test_large_scores_neither_overflow_nor_vanish() -> None:
    torch.manual_seed(2)
    query, key, value = 40 * torch.randn(1, 2, 4, 16), torch.randn(1, 2, 48, 16), torch.randn(1, 2, 48, 16)
    expected = reference.attend(query, key, value, None)
    torch.testing.assert_close(attend(query, key, value, None, CUT, 4), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("splits", [1, 2])
def test_keys_and_values_may_be_in_fp8(splits: int) -> None:
    torch.manual_seed(3)
    query, key, value = torch.randn(1, 4, 5, 32) / 6, torch.randn(1, 2, 40, 32), torch.randn(1, 2, 40, 32)
    key, value = key.to(torch.float8_e4m3fn), value.to(torch.float8_e4m3fn)
    expected = reference.attend(query, key.float(), value.float(), None)
    torch.testing.assert_close(reference.attend(query, key, value, None), expected)
    torch.testing.assert_close(attend(query, key, value, None, CUT, splits), expected, atol=1e-5, rtol=1e-4)
