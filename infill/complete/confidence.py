"""The confidence in a candidate: from its evidence to the probability that it is right.

The weights are fitted on held-out projects (`python -m train.calibrate`) and stored with the model. Must not know how
candidates are made or which are shown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from infill.request import Evidence

LEAST_EVIDENCE = -12.0  # nats per token; an impossible token counts as an unlikely one
LEAST_SUM, SUMS = -60.0, ("alone",)  # the same for nats of a whole text


@dataclass(frozen=True)
class Calibration:
    """A logistic model over `Evidence`; without weights, the likelihood times the certainty."""

    weights: Mapping[str, float]
    intercept: float = 0.0

    def confidence(self, evidence: Evidence) -> float:
        """0 to 1; with weights, the probability that the text is the right one."""
        if not self.weights:
            return math.exp(evidence.seam + evidence.certainty)
        values = evidence_values(evidence)
        score = self.intercept + sum(weight * values.get(name, 0.0) for name, weight in self.weights.items())
        return 1.0 / (1.0 + math.exp(-min(max(score, -60.0), 60.0)))


def evidence_values(evidence: Evidence) -> dict[str, float]:
    """The evidence by name, none below LEAST_EVIDENCE or LEAST_SUM."""
    return {name: max(LEAST_SUM if name in SUMS else LEAST_EVIDENCE, value) for name, value in asdict(evidence).items()}
