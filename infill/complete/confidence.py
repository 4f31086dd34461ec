"""How sure we are of a candidate: the evidence for it, and the probability of being right that follows.

The weights of the evidence are learnt from held-out projects (`python -m train.calibrate`) and stored with the model.
Must not know how candidates are made nor what is shown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

SHORTEST = -12.0  # nats; an impossible token says no more than an unlikely one


@dataclass(frozen=True)
class Evidence:
    """Log-probabilities in nats a token.

    seam: of the text and of the tokens after it, by the causal encoder that has not seen what follows.
    middle: of the text by the causal encoder that has. weakest: of the least likely token there; both 0 without it.
    certainty: of the denoiser in the text it wrote, 0 for texts that are not its own.
    denoised, drafted, copied: 1 where the text came about so. agreeing: share of the other ways that begin alike.
    matched: log of one more than the characters before the hole that stand before the copy too; fits: 1 where what
    follows the hole follows there too; places: log of one more than the places that say the same; all 0 without a
    copy. length: log of the number of tokens.
    """

    seam: float = 0.0
    middle: float = 0.0
    weakest: float = 0.0
    certainty: float = 0.0
    denoised: float = 0.0
    drafted: float = 0.0
    copied: float = 0.0
    agreeing: float = 0.0
    matched: float = 0.0
    fits: float = 0.0
    places: float = 0.0
    length: float = 0.0

    def values(self) -> dict[str, float]:
        return {field.name: max(SHORTEST, getattr(self, field.name)) for field in fields(self)}


@dataclass(frozen=True)
class Calibration:
    """Weights of a logistic model over `Evidence`; without any, likelihood times certainty."""

    weights: Mapping[str, float]
    intercept: float = 0.0

    def confidence(self, evidence: Evidence) -> float:
        """0 to 1; with weights the probability that the text is what belongs there."""
        if not self.weights:
            return math.exp(evidence.seam + evidence.certainty)
        values = evidence.values()
        score = self.intercept + sum(weight * values.get(name, 0.0) for name, weight in self.weights.items())
        return 1.0 / (1.0 + math.exp(-min(max(score, -60.0), 60.0)))
