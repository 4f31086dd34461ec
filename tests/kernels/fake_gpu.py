"""A GPU that computes nothing, on any machine: tensors are shapes, and kernel launches are recorded.

It shows which kernels, with which constants, a step needs at its true sizes, and that nothing between them waits for
the host, which a CUDA graph cannot record. It does not show any numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, CompiledKernel, compile
from triton.runtime.jit import JITFunction

from engine import kernels

MULTIPROCESSORS = {89: 128, 90: 132, 100: 148, 120: 170}
MOST_PROGRAMS = 2**31 - 1, 2**16 - 1, 2**16 - 1  # per dimension of a grid; CUDA's programming guide
WAITING = ("bincount", "equal", "is_nonzero", "item", "masked_select", "nonzero", "repeat_interleave", "unique")
TYPES = {
    torch.bfloat16: "*bf16", torch.float16: "*fp16", torch.float32: "*fp32", torch.float8_e4m3fn: "*fp8e4nv",
    torch.uint8: "*u8", torch.bool: "*i1", torch.int32: "*i32", torch.int64: "*i64",
}  # fmt: skip


@dataclass(frozen=True)
class Launch:
    """A kernel with all its compile-time parameters. sixteenths: which of its arguments are multiples of 16."""

    kernel: JITFunction[Any] = field(repr=False)
    name: str
    signature: tuple[tuple[str, str], ...]
    constants: tuple[tuple[str, Any], ...]
    sixteenths: tuple[int, ...]
    warps: int
    stages: int

    def compiled(self, capability: int) -> CompiledKernel:
        attributes = {(index,): [["tt.divisibility", 16]] for index in self.sixteenths}
        source = ASTSource(self.kernel, dict(self.signature), constexprs=dict(self.constants), attrs=attributes)
        options = {"num_warps": self.warps, "num_stages": self.stages}
        return compile(source, target=GPUTarget("cuda", capability, 32), options=options)  # type: ignore[no-any-return]


class Recording(TorchDispatchMode):
    """Fails at any operation that a captured stream does not allow."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        made = [x for x in tree_leaves(result) if isinstance(x, Tensor)]
        on_gpu = [x.is_cuda for x in given]
        assert not (any(on_gpu) and name.strip("_").startswith(WAITING)), f"{func} waits for the GPU"
        assert not (any(on_gpu) and not all(x.is_cuda for x in made)), f"{func} brings numbers to the host"
        assert not (given and not any(on_gpu) and any(x.is_cuda for x in made)), f"{func} brings numbers to the GPU"
        assert not ("copy" in name and len(set(on_gpu)) > 1), f"{func} copies between host and GPU"
        assert not (name.startswith("index") and any(x.dtype == torch.bool for x in given[1:])), f"{func} by a mask"
        return result


class Guarded(TorchFunctionMode):
    """Slices and copies with other operations, because PyTorch's own need a driver."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is Tensor.__getitem__:
            return _part(*args)
        if func is Tensor.__setitem__:
            return _put(_part(*args[:2]), args[2])
        if func is Tensor.copy_:
            return _put(*args)
        if func is Tensor.contiguous:
            return args[0] if args[0].is_contiguous() else args[0].clone(memory_format=torch.contiguous_format)
        if func is Tensor.__invert__:
            return torch.bitwise_not(args[0])
        return func(*args, **(kwargs or {}))


def _put(target: Tensor, value: Any) -> Tensor:
    if isinstance(value, Tensor):
        value.to(target.device).expand(target.shape)
    return target.fill_(0)


def _part(x: Tensor, index: Any) -> Tensor:
    places = list(index) if isinstance(index, tuple) else [index]
    if Ellipsis in places:
        at = places.index(Ellipsis)
        places[at : at + 1] = [slice(None)] * (x.dim() + 1 - sum(place is not None for place in places))
    dim = 0
    for place in places:
        if isinstance(place, int):
            x = x.select(dim, place)
        else:
            x = (
                x.unsqueeze(dim)
                if place is None
                else torch.ops.aten.slice(x, dim, place.start, place.stop, place.step or 1)
            )
            dim += 1
    return x


@contextmanager
def fake_gpu(capability: int) -> Iterator[list[Launch]]:
    """Within it "cuda" is such a GPU; yields the list of launched kernels, each once."""
    launches: dict[Launch, None] = {}
    seen: list[Launch] = []

    def run(kernel: JITFunction[Any], *arguments: Any, grid: Any, warmup: bool, **named: Any) -> None:
        assert not any(n < 1 or n > most for n, most in zip(grid, MOST_PROGRAMS, strict=False)), (kernel, grid)
        launch = launch_of(kernel, arguments, named, on_gpu=True)
        if launch not in launches:
            launches[launch] = None
            seen.append(launch)

    properties = SimpleNamespace(multi_processor_count=MULTIPROCESSORS[capability])
    with pytest.MonkeyPatch.context() as patch, FakeTensorMode(), Guarded():
        patch.setattr(torch.cuda, "get_device_capability", lambda device=None: divmod(capability, 10))
        patch.setattr(torch.cuda, "get_device_properties", lambda device=None: properties)
        patch.setattr(JITFunction, "run", run)
        patch.setattr(kernels, "_enabled", {0})
        yield seen


def launch_of(
    kernel: JITFunction[Any], arguments: tuple[Any, ...], named: dict[str, Any], on_gpu: bool = False
) -> Launch:
    """The launch as Triton would compile it. on_gpu: whether all tensors must be."""
    warps, stages = named.pop("num_warps", 4), named.pop("num_stages", 3)
    values = dict(zip(kernel.arg_names, arguments, strict=False)) | named
    assert set(values) == set(kernel.arg_names), (kernel.arg_names, set(values))
    signature, constants, sixteenths = [], [], []
    for index, parameter in enumerate(kernel.params):
        value = values[parameter.name]
        kind = "constexpr"
        if isinstance(value, Tensor):
            assert value.is_cuda or not on_gpu, f"{kernel.fn.__name__} is given {parameter.name} on the host"
            kind = TYPES[value.dtype]
            if value.storage_offset() * value.element_size() % 16 == 0:
                sixteenths.append(index)
        elif not parameter.is_constexpr and isinstance(value, int) and (value != 1 or parameter.do_not_specialize):
            kind = "i32" if -(2**31) <= value < 2**31 else "i64"
            if value % 16 == 0 and not parameter.do_not_specialize:
                sixteenths.append(index)
        elif not parameter.is_constexpr and isinstance(value, float):
            kind = "fp32"
        if kind == "constexpr":
            constants.append((parameter.name, value))
        signature.append((parameter.name, kind))
    return Launch(
        kernel, kernel.fn.__name__, tuple(signature), tuple(constants), tuple(sixteenths), warps, stages
    )  # fmt: skip
