"""Percentiles and the JSON of results."""

from __future__ import annotations

import json

from bench.report import Spread, json_text, percentile


def test_percentiles_are_measured_samples() -> None:
    samples = [float(number) for number in range(20, 0, -1)]
    assert percentile(samples, 0.5) == 10 and percentile(samples, 0.95) == 19 and percentile(samples, 1.0) == 20
    assert percentile([7.0], 0.5) == percentile([7.0], 0.95) == 7


def test_json_keeps_five_digits_and_no_samples() -> None:
    text = json_text({"ms": Spread.of([1.0, 2.0, 3.0]), "share": 1 / 3, "rows": [{"a": 1}] * 200, "none": None})
    content = json.loads(text)
    assert content["ms"] == {"median": 2.0, "quartiles": [1.5, 2.5], "samples": 3}
    assert content["share"] == 0.33333 and content["none"] is None and len(content["rows"]) == 200
    assert max(map(len, text.splitlines())) <= 400
