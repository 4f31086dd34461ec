"""GGUF files as llama.cpp writes them: metadata, tensor directory, and tensors as floats.

Format: github.com/ggml-org/ggml, docs/gguf.md; block layouts: ggml-common.h. The header is read here and not by the
`gguf` package because that package takes 13 s for a vocabulary of 150,000 tokens; the tests hold both to each other.
Everything is checked against the size of the file before a tensor is read. Must not know what the tensors are for.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.errors import ModelError
from engine.files import open_regular

MAGIC, VERSIONS = b"GGUF", (2, 3)
MAX_ENTRIES, MAX_DIMENSIONS = 1 << 16, 4
MAX_ITEMS, MAX_HEADER = 1 << 22, 1 << 26  # of all arrays together, and bytes; a vocabulary of 262,144 has 12 MB
SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
STRING, ARRAY = 8, 9
ALIGNMENT = "general.alignment"
ONES = 0x0101010101010101  # a word of eight bytes, each 1
LOW_HALVES = 0x0F * ONES
FIFTH_BITS = torch.tensor([[bits >> bit << 4 & 16 for bit in range(8)] for bits in range(256)], dtype=torch.uint8).view(
    torch.int64
)[:, 0]  # the words for `_fifth_bits`, by a byte


@dataclass(frozen=True)
class BlockType:
    """How a tensor is stored: `bytes` for every `values` consecutive numbers of a row."""

    name: str
    values: int
    bytes: int
    decode: Callable[[Tensor], Tensor]  # [blocks, bytes] in uint8 to [blocks, values] in fp32


@dataclass(frozen=True)
class GgufTensor:
    """shape: as PyTorch has it, rows first. start: bytes from the beginning of the file."""

    name: str
    shape: tuple[int, ...]
    type: BlockType
    start: int

    @property
    def bytes(self) -> int:
        count = 1
        for size in self.shape:
            count *= size
        return count // self.type.values * self.type.bytes


class GgufFile:
    """An open file. metadata: by key; arrays are lists. tensors: by name."""

    def __init__(self, file: Path) -> None:
        """Raises ModelError for what is not a complete GGUF file that this version reads."""
        self.file = file
        try:
            with open_regular(file) as stream:
                self._bytes = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
        except (OSError, ValueError) as reason:
            raise ModelError(f"{file} cannot be read ({reason}); check the path, or fetch the model again.") from reason
        reader = _Reader(self._bytes, file)
        if reader.take(4) != MAGIC:
            raise ModelError(f"{file} is not a GGUF file; choose another file, or fetch the model again.")
        version = reader.scalar("<I")
        if version not in VERSIONS:
            raise ModelError(
                f"{file} is in version {version} of GGUF; this build reads {VERSIONS[0]} and {VERSIONS[1]}."
            )
        tensors, entries = reader.count(MAX_ENTRIES), reader.count(MAX_ENTRIES)
        self.metadata: Mapping[str, Any] = dict(reader.entry() for _ in range(entries))
        directory = [reader.tensor() for _ in range(tensors)]
        alignment = self.metadata.get(ALIGNMENT, 32)
        if not isinstance(alignment, int) or not 0 < alignment <= 1 << 20:
            raise reader.broken()
        first = -(-reader.at // alignment) * alignment
        self.tensors = {
            name: GgufTensor(name, shape, _block_type(file, name, kind, shape), first + offset)
            for name, shape, kind, offset in directory
        }
        if len(self.tensors) != len(directory):
            raise reader.broken()
        end = first
        for tensor in sorted(self.tensors.values(), key=lambda tensor: tensor.start):
            if tensor.start < end:
                raise ModelError(f"The tensor {tensor.name} in {file} overlaps another one; fetch the model again.")
            end = tensor.start + tensor.bytes
        if end > len(self._bytes):
            raise ModelError(f"{file} is cut off after {len(self._bytes)} of {end} bytes; fetch the model again.")

    def stored(self, name: str) -> Tensor:
        """The bytes of a tensor as they are in the file: [rows, bytes] in uint8, mapped into memory."""
        tensor = self.tensors[name]
        data = np.frombuffer(self._bytes, np.uint8, tensor.bytes, tensor.start)
        rows = tensor.shape[0] if len(tensor.shape) > 1 else 1
        return torch.from_numpy(data).view(rows, -1)

    def drop_pages(self) -> None:
        """Takes the pages that were read out of this process's memory. Those read later are mapped one by one."""
        for name in ("MADV_DONTNEED", "MADV_RANDOM"):
            if hasattr(mmap, name):
                self._bytes.madvise(getattr(mmap, name))

    def read(self, name: str, first: int = 0, end: int | None = None) -> Tensor:
        """The rows [first, end) of a tensor in fp32, which may be changed; all of a vector."""
        tensor = self.tensors[name]
        rows = self.stored(name)[first:end]
        values = tensor.type.decode(rows.reshape(-1, tensor.type.bytes))
        return values.view(-1) if len(tensor.shape) == 1 else values.view(len(rows), *tensor.shape[1:])


class _Reader:
    """Reads the header in order; raises ModelError where it ends too early or has sizes that cannot be."""

    def __init__(self, data: mmap.mmap, file: Path) -> None:
        self.data, self.file, self.at = data, file, 0
        self.size, self.items = min(len(data), MAX_HEADER), 0

    def broken(self) -> ModelError:
        return ModelError(f"The header of {self.file} is damaged; fetch the model again.")

    def take(self, size: int) -> bytes:
        if size > self.size - self.at:
            raise self.broken()
        self.at += size
        return self.data[self.at - size : self.at]

    def scalar(self, form: str) -> Any:
        size = struct.calcsize(form)
        if size > self.size - self.at:
            raise self.broken()
        (value,) = struct.unpack_from(form, self.data, self.at)
        self.at += size
        return value

    def count(self, most: int) -> int:
        value = self.scalar("<Q")
        if value > most:
            raise self.broken()
        return int(value)

    def string(self) -> str:
        return self.take(self.scalar("<Q")).decode("utf-8", "surrogateescape")

    def strings(self, count: int) -> list[str]:
        """`count` strings; the same as `string` in a loop, in a third of the time."""
        length_at, data, size, at, found = struct.Struct("<Q").unpack_from, self.data, self.size, self.at, []
        for _ in range(count):
            if at + 8 > size:
                raise self.broken()
            end = at + 8 + length_at(data, at)[0]
            if end > size:
                raise self.broken()
            found.append(data[at + 8 : end].decode("utf-8", "surrogateescape"))
            at = end
        self.at = at
        return found

    def entry(self) -> tuple[str, Any]:
        name = self.string()
        return name, self.value(self.scalar("<I"))

    def value(self, kind: int) -> Any:
        if kind == STRING:
            return self.string()
        if kind == ARRAY:
            kind, length = self.scalar("<I"), self.count(MAX_ITEMS - self.items)
            self.items += length
            if kind in SCALARS:
                item = np.dtype(SCALARS[kind] if kind != 7 else "?")
                return np.frombuffer(self.take(length * item.itemsize), item).tolist()
            if kind == STRING:
                return self.strings(length)
            raise self.broken()
        if kind not in SCALARS:
            raise self.broken()
        return self.scalar(SCALARS[kind])

    def tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        name, dimensions = self.string(), self.scalar("<I")
        if not 0 < dimensions <= MAX_DIMENSIONS:
            raise self.broken()
        shape = tuple(self.count(1 << 40) for _ in range(dimensions))[::-1]
        if 0 in shape:
            raise self.broken()
        return name, shape, self.scalar("<I"), self.count(1 << 60)


def _block_type(file: Path, name: str, number: int, shape: tuple[int, ...]) -> BlockType:
    found = BLOCK_TYPES.get(number)
    if found is None:
        known = ", ".join(one.name for one in BLOCK_TYPES.values())
        raise ModelError(
            f"The tensor {name} in {file} is stored in type {number} of ggml, which this build does not read "
            f"(it reads {known}); choose another build of the model."
        )
    if shape[-1] % found.values:
        raise ModelError(f"The tensor {name} in {file} has rows that do not fit its type; fetch the model again.")
    return found


def _half(blocks: Tensor, at: int) -> Tensor:
    """The half-precision number at byte `at` of every block: [blocks, 1] in fp32."""
    return blocks[:, at : at + 2].contiguous().view(torch.float16).float()


def _words(packed: Tensor) -> Tensor:
    """[blocks, n] bytes as [blocks, n / 8] words; shifts of words take a fraction of the time of shifts of bytes."""
    return packed.contiguous().view(torch.int64)


def _nibbles(packed: Tensor) -> Tensor:
    """[blocks, n] bytes to [blocks, 2, n]: low halves, then high halves."""
    words = _words(packed)
    return torch.stack((words & LOW_HALVES, (words >> 4) & LOW_HALVES), dim=1).view(torch.uint8)


def _fifth_bits(packed: Tensor) -> Tensor:
    """[blocks, n] bytes to [blocks, 8 n] numbers, 16 for every bit that is set, lowest first."""
    return FIFTH_BITS[packed.reshape(-1).int()].view(torch.uint8).view(len(packed), -1)


def _f32(blocks: Tensor) -> Tensor:
    return blocks.clone(memory_format=torch.contiguous_format).view(torch.float32)


def _f16(blocks: Tensor) -> Tensor:
    return blocks.contiguous().view(torch.float16).float()


def _bf16(blocks: Tensor) -> Tensor:
    return blocks.contiguous().view(torch.bfloat16).float()


def _q8_0(blocks: Tensor) -> Tensor:
    return blocks[:, 2:].contiguous().view(torch.int8).float().mul_(_half(blocks, 0))


def _q4_0(blocks: Tensor) -> Tensor:
    return _nibbles(blocks[:, 2:]).flatten(1).float().sub_(8).mul_(_half(blocks, 0))


def _q4_1(blocks: Tensor) -> Tensor:
    return _nibbles(blocks[:, 4:]).flatten(1).float().mul_(_half(blocks, 0)).add_(_half(blocks, 2))


def _q5_0(blocks: Tensor) -> Tensor:
    codes = _nibbles(blocks[:, 6:]).flatten(1).add_(_fifth_bits(blocks[:, 2:6]))
    return codes.float().sub_(16).mul_(_half(blocks, 0))


def _q5_1(blocks: Tensor) -> Tensor:
    codes = _nibbles(blocks[:, 8:]).flatten(1).add_(_fifth_bits(blocks[:, 4:8]))
    return codes.float().mul_(_half(blocks, 0)).add_(_half(blocks, 2))


def _k_scales(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Scales and minima of the eight groups of a Q4_K or Q5_K block: [blocks, 8, 1] each, in fp32."""
    low, middle, high = blocks[:, 4:8], blocks[:, 8:12], blocks[:, 12:16]
    scales = torch.cat((low & 63, (high & 15) | (low >> 6 << 4)), dim=1)
    minima = torch.cat((middle & 63, (high >> 4) | (middle >> 6 << 4)), dim=1)
    return (scales.float() * _half(blocks, 0))[..., None], (minima.float() * _half(blocks, 2))[..., None]


def _q4_k(blocks: Tensor) -> Tensor:
    scales, minima = _k_scales(blocks)
    codes = _nibbles(blocks[:, 16:].reshape(-1, 32)).view(-1, 8, 32)
    return codes.float().mul_(scales).sub_(minima).flatten(1)


def _q5_k(blocks: Tensor) -> Tensor:
    scales, minima = _k_scales(blocks)
    high = (_words(blocks[:, 16:48])[:, None] >> torch.arange(8)[:, None]) & ONES
    codes = _nibbles(blocks[:, 48:].reshape(-1, 32)).view(-1, 8, 32).add_((high << 4).view(torch.uint8))
    return codes.float().mul_(scales).sub_(minima).flatten(1)


def _q6_k(blocks: Tensor) -> Tensor:
    low = _nibbles(blocks[:, :128].reshape(-1, 64)).view(-1, 2, 4, 32)
    high = (_words(blocks[:, 128:192]).view(-1, 2, 1, 4) >> torch.tensor([0, 2, 4, 6])[:, None]) & (3 * ONES)
    codes = low.add_((high << 4).view(torch.uint8)).view(-1, 16, 16)
    scales = blocks[:, 192:208].contiguous().view(torch.int8).float() * _half(blocks, 208)
    return codes.float().sub_(32).mul_(scales[..., None]).flatten(1)


BLOCK_TYPES = {  # by ggml's number
    0: BlockType("F32", 1, 4, _f32),
    1: BlockType("F16", 1, 2, _f16),
    2: BlockType("Q4_0", 32, 18, _q4_0),
    3: BlockType("Q4_1", 32, 20, _q4_1),
    6: BlockType("Q5_0", 32, 22, _q5_0),
    7: BlockType("Q5_1", 32, 24, _q5_1),
    8: BlockType("Q8_0", 32, 34, _q8_0),
    12: BlockType("Q4_K", 256, 144, _q4_k),
    13: BlockType("Q5_K", 256, 176, _q5_k),
    14: BlockType("Q6_K", 256, 210, _q6_k),
    30: BlockType("BF16", 1, 2, _bf16),
}
