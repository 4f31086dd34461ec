"""What the GPU benchmarks share: the device, formats of weights, timing. None of this needs a GPU to be imported.

Must not know what is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter

import torch

from bench.gpu.step_shapes import BUILDS
from bench.report import Spread
from engine.errors import InputError

NEVER = -1.0  # nats; a confidence threshold that no canvas reaches, so that no run stops early


def choose_device(tiny: bool, module: str, kernels: bool = False) -> torch.device:
    """CUDA, or with `tiny` the CPU. Raises InputError otherwise.

    module: named in the error. kernels: whether the program launches Triton kernels, which a CPU only interprets.
    """
    if torch.cuda.is_available():
        return torch.device("cuda")
    if tiny and (not kernels or _interprets_kernels()):
        return torch.device("cpu")
    command = f"{'TRITON_INTERPRET=1 ' if kernels else ''}python -m {module} --tiny"
    raise InputError(f"There is no GPU; for a dry run on the CPU run `{command}`.")


def _interprets_kernels() -> bool:
    import triton

    return bool(triton.knobs.runtime.interpret)


def choose_formats(formats: Sequence[str] | None) -> list[str]:
    """The given formats, or all. Raises InputError for an unknown one."""
    if unknown := set(formats or ()) - BUILDS.keys():
        raise InputError(f"There is no format {sorted(unknown)[0]!r}; choose from {', '.join(BUILDS)}.")
    return list(formats or BUILDS)


def timed(work: Callable[[], object], device: torch.device, repeats: int, warm_up: int | None = None) -> Spread:
    """Milliseconds of `work`, measured by device events on a GPU. warm_up: runs before; by default 3 on a GPU."""
    for _ in range((3 if device.type == "cuda" else 0) if warm_up is None else warm_up):
        work()
    samples = []
    for _ in range(repeats):
        if device.type != "cuda":
            started = perf_counter()
            work()
            samples.append(1000 * (perf_counter() - started))
            continue
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        end.synchronize()
        samples.append(start.elapsed_time(end))
    return Spread.of(samples)
