"""Stop rules applied to recorded steps, and the ways out of a wrong length."""

from __future__ import annotations

import torch

from bench.quality import line_ends
from bench.quality.stop_rules import SHIPPED, Step, Trace, rules, stops_at, table, trace_of
from infill.complete.completion import Completer
from train.held_out import HeldOutHole

HOLE = HeldOutHole("python", "rest of line", "project", "a.py", "def add(a, b):\n    return ", "a + b", "\n\n\nx = 1\n")


def trace(*steps: tuple[int, float, float]) -> Trace:
    found = [Step(torch.tensor([token]), entropy, divergence) for token, entropy, divergence in steps]
    return Trace(found, [str(token) for token, *_ in steps], "2")


def test_each_rule_stops_where_its_condition_holds_first() -> None:
    one = trace((1, 9, 9), (2, 9, 0.5), (2, 9, 0.05), (2, 9, 0.05), (2, 0.1, 0.0), (2, 0.1, 0.0))
    ends = {name: stops_at(rule, one) for name, rule in rules(0.2).items()}
    assert ends[SHIPPED] == 4 and ends["all steps"] == 5 and ends["argmax unchanged"] == 2
    assert ends["KL below 0.1"] == 2 and ends["KL below 0.1, twice"] == 3 and ends["KL below 0.01"] == 4
    assert ends["as shipped, or KL below 0.1"] == 2
    early = trace((1, 9, 9), (1, 9, 0.05), (2, 0.1, 0.0), (2, 0.1, 0.0))
    by_rule = {row["rule"]: row for row in table([one, early], 0.2)}
    assert by_rule[SHIPPED]["same"] == by_rule[SHIPPED]["exact"] == 1.0 and by_rule[SHIPPED]["steps"] == 4.5
    assert by_rule["KL below 0.1"]["same"] == by_rule["KL below 0.1"]["exact"] == 0.5


def test_a_trace_has_every_step_of_a_canvas(completer: Completer) -> None:
    found = trace_of(completer, HOLE)
    assert len(found.steps) == len(found.texts) == completer.model.sampling.max_steps
    assert found.steps[0].divergence == float("inf") and all(step.divergence >= -1e-4 for step in found.steps)


def test_every_way_out_fills_the_same_holes(completer: Completer) -> None:
    ways = {way: line_ends.completer_for(completer, way) for way in line_ends.WAYS}
    assert [type(one.lengths).__name__ for one in ways.values()] == [
        "Probing",
        "Probing",
        "ShorterProbing",
        "ShorterProbing",
    ]
    found = line_ends.measure({way: ways[way] for way in ("none", "both")}, [HOLE])
    assert all(sums.requests == 1 and sums.steps > 10 for sums in found.values())
