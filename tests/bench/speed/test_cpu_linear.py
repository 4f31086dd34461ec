"""All measured linear products compute the same product. No time is asserted."""

from __future__ import annotations

import warnings

import torch

from bench.speed.cpu_linear import contestants, measure, shapes


@torch.inference_mode()
def test_contestants_compute_the_same_product() -> None:
    torch.manual_seed(0)
    weight, x = torch.randn(64, 128) / 128**0.5, torch.randn(5, 128)
    expected = x @ weight.T
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = {name: contestant(x) for name, contestant in contestants(weight, 5).items()}
    assert {"float32", "bfloat16"} <= found.keys()
    for name, product in found.items():
        allowed = 1e-5 if name.startswith("float32") else 0.06
        torch.testing.assert_close(product.float(), expected, atol=allowed, rtol=0, msg=name)


def test_every_contestant_is_measured() -> None:
    assert shapes(256, 704)["gate and up"] == (1408, 256)
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        times = measure(32, 64, 4, repeats=1)
        assert times.keys() == contestants(torch.randn(32, 64), 4).keys()
    assert all(time >= 0 for time in times.values())
