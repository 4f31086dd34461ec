"""Microseconds of one linear product on the CPU, in every number type and layout of PyTorch.

`python -m bench.speed.cpu_linear` measures the shapes of the shipped model and of one with 30 M parameters, with the
rows of a drafted token, a scored line, a narrow and a wide canvas. `engine.ops.linear` follows this table. Must not
know the model's forward pass.
"""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from time import process_time
from typing import Annotated, Any

import torch
import typer
from rich.progress import track
from torch import Tensor
from torch.nn import functional as F

from bench.report import RESULTS, Report, conditions
from engine.ops.linear import Product, can_pack
from train.program import reports_errors

VOCAB = 8192
MODELS = {"pocket": (256, 704), "30 M": (512, 1408)}
ROWS = (1, 40, 96, 192)
BATCH = 10  # products per measurement, for the resolution of the clock

Contestant = Callable[[Tensor], Tensor]


def shapes(hidden: int, intermediate: int) -> dict[str, tuple[int, int]]:
    """(out, in) by name of the product."""
    return {
        "queries, keys, values": (2 * hidden, hidden),
        "attention out": (hidden, hidden),
        "gate and up": (2 * intermediate, hidden),
        "down": (hidden, intermediate),
        "vocabulary": (VOCAB, hidden),
    }


def contestants(weight: Tensor, rows: int) -> dict[str, Contestant]:
    """Functions from x [rows, in] in float32 to [rows, out], with the conversion of x. Leaves out those that this
    PyTorch or machine does not support."""
    half = weight.bfloat16()
    found: dict[str, Contestant] = {
        "float32": lambda x: F.linear(x, weight),
        "bfloat16": lambda x: F.linear(x.bfloat16(), half),
    }
    if can_pack(half):
        found["bfloat16, packed"] = Product(half)
    for name, make in (
        ("float32, packed", _packed_float32),
        ("int8 weights", _int8_weights),
        ("int8, PyTorch", _dynamic_int8),
        ("int8, oneDNN", _onednn_int8),
    ):
        try:
            contestant = make(weight, rows)
            contestant(torch.zeros(rows, weight.shape[1]))
        except (AttributeError, NotImplementedError, RuntimeError):
            continue
        found[name] = contestant
    return found


def _packed_float32(weight: Tensor, rows: int) -> Contestant:
    packed = torch.ops.mkldnn._reorder_linear_weight(weight)
    return lambda x: torch.ops.mkldnn._linear_pointwise.default(x, packed, None, "none", [], "")


def _int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    scales = weight.abs().amax(dim=1) / 127
    return (weight / scales[:, None]).round().to(torch.int8), scales


def _int8_weights(weight: Tensor, rows: int) -> Contestant:
    """int8 weights, activations in bfloat16."""
    numbers, scales = _int8(weight)
    half = scales.bfloat16()
    return lambda x: torch.ops.aten._weight_int8pack_mm(x.bfloat16(), numbers, half)


def _dynamic_int8(weight: Tensor, rows: int) -> Contestant:
    """int8 weights; activations rounded to int8 with one scale for all rows."""
    layer = torch.ao.nn.quantized.dynamic.Linear(weight.shape[1], weight.shape[0], bias_=False)
    zeros = torch.zeros(len(weight), dtype=torch.int)
    layer.set_weight_bias(torch.quantize_per_channel(weight, _int8(weight)[1], zeros, 0, torch.qint8), None)
    return layer


def _onednn_int8(weight: Tensor, rows: int) -> Contestant:
    """The same with oneDNN's product."""
    numbers, scales = _int8(weight)
    packed = torch.ops.onednn.qlinear_prepack(numbers, [rows, weight.shape[1]])
    zeros = torch.zeros(len(weight), dtype=torch.int)

    def product(x: Tensor) -> Tensor:
        step = max(float(x.abs().amax()) / 127, 1e-9)
        rounded = (x * (1 / step)).round_().to(torch.int8)
        return torch.ops.onednn.qlinear_pointwise(
            rounded, step, 0, packed, scales, zeros, None, 1.0, 0, torch.float32, "none", [], ""
        )

    return product


def measure(out: int, size: int, rows: int, repeats: int) -> dict[str, float]:
    """Median microseconds of CPU time of each contestant; they run in turns."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(out, size, generator=generator) * size**-0.5
    x = torch.randn(rows, size, generator=generator)
    times: dict[str, list[float]] = {}
    runs = contestants(weight, rows)
    for _ in range(repeats):
        for name, contestant in runs.items():
            started = process_time()
            for _ in range(BATCH):
                contestant(x)
            times.setdefault(name, []).append(1e6 * (process_time() - started) / BATCH)
    return {name: statistics.median(samples) for name, samples in times.items()}


def main(
    repeats: Annotated[int, typer.Option(min=1, help="Measured runs of each contestant.")] = 15,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Measure linear products with one thread; writes cpu_linear.md and cpu_linear.json."""
    warnings.filterwarnings("ignore", category=UserWarning, module="torch")
    torch.set_num_threads(1)
    figures: list[dict[str, Any]] = []
    cells = [
        (f"{model}: {name}", shape, rows)
        for model, sizes in MODELS.items()
        for name, shape in shapes(*sizes).items()
        for rows in ROWS
    ]
    with torch.inference_mode():
        for name, shape, rows in track(cells, "products"):
            times = measure(*shape, rows, repeats)
            shown = {kind: round(time, 1) for kind, time in times.items()}
            figures.append({"product": name, "out": shape[0], "in": shape[1], "rows": rows, "microseconds": shown})
    kinds = list(dict.fromkeys(kind for figure in figures for kind in figure["microseconds"]))
    table = [_row(figure, kinds) for figure in figures]
    report = Report(TITLE, conditions(), ("product", "out x in", "rows", *kinds), table, NOTES, figures)
    report.show()
    for file in report.write("cpu_linear", out):
        print(file)


TITLE = "Linear products on the CPU, microseconds"
NOTES = (
    f"CPU time of one thread, which depends little on other load; median of the repeats, {BATCH} products each, "
    "contestants in turns. The weight stays in the processor's cache, so a product takes longer in a forward pass. The "
    "conversion of x from float32 is included.",
    "Packed: the weight reordered once into oneDNN's layout. int8 weights: aten._weight_int8pack_mm, activations in "
    "bfloat16. int8, PyTorch: ao.nn.quantized.dynamic.Linear; int8, oneDNN: onednn.qlinear_pointwise; both round "
    "the activations to int8 with one scale for all rows, so they compute something else.",
    "To emulate a machine without AMX or AVX-512, set ONEDNN_MAX_CPU_ISA and MKL_ENABLE_INSTRUCTIONS.",
)


def _row(figure: dict[str, Any], kinds: Sequence[str]) -> list[str]:
    times = figure["microseconds"]
    shown = [f"{times[kind]:.0f}" if kind in times else "" for kind in kinds]
    return [figure["product"], f"{figure['out']} x {figure['in']}", str(figure["rows"]), *shown]


if __name__ == "__main__":
    typer.run(reports_errors(main))
