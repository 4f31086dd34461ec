"""How sure we are of a candidate: the evidence for it, and the probability of being right that follows.

The weights of the evidence are learnt from held-out projects (`python -m train.calibrate`) and stored with the model.
Must not know how candidates are made nor what is shown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from infill.request import Evidence

LEAST_EVIDENCE = -12.0  # nats; an impossible token says no more than an unlikely one


@dataclass(frozen=True)
class Calibration:
    """Weights of a logistic model over `Evidence`; without any, likelihood times certainty."""

    weights: Mapping[str, float]
    intercept: float = 0.0

    def confidence(self, evidence: Evidence) -> float:
        """0 to 1; with weights the probability that the text is what belongs there."""
        if not self.weights:
            return math.exp(evidence.seam + evidence.certainty)
        values = evidence_values(evidence)
        score = self.intercept + sum(weight * values.get(name, 0.0) for name, weight in self.weights.items())
        return 1.0 / (1.0 + math.exp(-min(max(score, -60.0), 60.0)))


def evidence_values(evidence: Evidence) -> dict[str, float]:
    """The evidence by name, none below LEAST_EVIDENCE."""
    return {name: max(LEAST_EVIDENCE, value) for name, value in asdict(evidence).items()}
