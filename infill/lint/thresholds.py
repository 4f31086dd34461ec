"""Evidence for an edit, and when it is strong enough to show: one logistic model with a threshold per kind of finding.

A model has them in `lint.json` beside its weights; train/lint/thresholds.py writes that file. Must not know how the
evidence is computed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from engine.errors import ModelError
from engine.files import read_json_object
from infill.lint.kinds import KINDS

FILE = "lint.json"
CLAMP = 12.0


@dataclass(frozen=True)
class EditEvidence:
    """For an edit that replaces `old` by `new`. Gains are in nats, ratios are differences of log counts, everything
    else is 0 or 1 unless noted. 0 means that nothing is known."""

    # by the causal encoder (infill/lint/likelihood.py)
    edit_gain: float = 0.0  # log p(new) - log p(old), given the text before and the text further below
    suffix_gain: float = 0.0  # the same for the tokens after the edit
    surprisal: float = 0.0  # -log p(old)
    extra_tokens: float = 0.0  # tokens of new - tokens of old
    # by the denoiser (infill/lint/masked.py)
    masked_gain: float = 0.0  # log p(new) - log p(old) with the position masked
    # by counting in the file (infill/lint/frequencies.py)
    new_unread: float = 0.0  # no other code reads the variable `new`
    old_read_once: float = 0.0  # no other code reads the variable `old`
    old_occurs_once: float = 0.0
    old_defined: float = 0.0  # the file binds, defines or imports old
    count_ratio: float = 0.0  # new to old, in the whole file
    new_in_line: float = 0.0
    old_repeats_in_line: float = 0.0
    bigram_ratio: float = 0.0  # word pairs that the edit adds to those it removes
    # by comparing two variables of a function (infill/lint/frequencies.py)
    new_unread_local: float = 0.0  # new_unread, and new is not a parameter
    parameter_change: float = 0.0  # -1 to 1: new is a parameter - old is a parameter
    is_update: float = 0.0  # the line assigns to old a value computed from old
    read_ratio: float = 0.0  # reads of new to other reads of old
    distance_ratio: float = 0.0  # lines since old was assigned to lines since new was
    # by names that many projects use (infill/lint/names.py)
    familiarity: float = 0.0  # 0 to 3: how widely used old is
    # by usages (infill/lint/usages.py)
    usage_ratio: float = 0.0  # new to old, in the same kind of usage
    name_match: float = 0.0  # -1 to 1: how much better new matches the name of the parameter or target
    member_match: float = 0.0  # 0 to 2: new is used elsewhere in the same role, and on the same object
    parameter_match: float = 0.0  # -2 to 2: how much better swapped arguments match the names of the parameters
    call_ratio: float = 0.0  # calls with the arguments swapped to calls with the arguments as they are
    literal_mix: float = 0.0  # 1: the arguments are of different kinds; 2: and both are literals
    unknown_callee: float = 0.0  # neither this file nor many projects define what is called

    def values(self) -> dict[str, float]:
        """Every field by name, clamped to CLAMP either way: one rare name must not outweigh everything else."""
        return {name: max(-CLAMP, min(CLAMP, getattr(self, name))) for name in EVIDENCE}

    @property
    def total_gain(self) -> float:
        """How much likelier the whole text becomes with the edit, in nats."""
        return self.edit_gain + self.suffix_gain


EVIDENCE = tuple(field.name for field in fields(EditEvidence))


@dataclass(frozen=True)
class Threshold:
    """For one kind: log-odds = intercept + weights * evidence. Where `shown`, findings with at least `minimum` are."""

    weights: Mapping[str, float]
    intercept: float
    minimum: float
    shown: bool = True

    def log_odds(self, evidence: EditEvidence) -> float:
        """Log-odds that the edit fixes a bug, on the scale of the training data."""
        values = evidence.values()
        return self.intercept + sum(weight * values[name] for name, weight in self.weights.items())


@dataclass(frozen=True)
class Thresholds:
    """kinds: by code. languages: those they were trained on; nothing is shown in others.

    on_by_default: whether the findings are good enough to show to users who did not switch lint on.
    """

    kinds: Mapping[str, Threshold]
    languages: frozenset[str]
    on_by_default: bool = False

    @property
    def shown(self) -> frozenset[str]:
        """The codes of the kinds that can be shown."""
        return frozenset(code for code, threshold in self.kinds.items() if threshold.shown)

    @staticmethod
    def read(folder: Path) -> Thresholds | None:
        """The thresholds of the model in `folder`; None if it has none. Raises ModelError if the file is damaged."""
        file = folder / FILE
        if not file.is_file():
            return None
        try:
            content = read_json_object(file)
            kinds = {
                code: Threshold(
                    dict(one["weights"]), float(one["intercept"]), float(one["minimum"]), bool(one["shown"])
                )
                for code, one in content["kinds"].items()
                if code in KINDS
            }
            return Thresholds(kinds, frozenset(content["languages"]), bool(content["on_by_default"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(f"Cannot read {file} ({error}); fetch the model again with `gesso model pull`.") from error

    def write(self, folder: Path, measured: Mapping[str, object]) -> Path:
        """Stores them in `folder`, with the figures `measured` on the training data."""
        kinds = {
            code: {
                "shown": threshold.shown,
                "minimum": round(threshold.minimum, 4),
                "intercept": round(threshold.intercept, 4),
                "weights": {name: round(weight, 4) for name, weight in threshold.weights.items()},
            }
            for code, threshold in self.kinds.items()
        }
        content = {
            "languages": sorted(self.languages),
            "on_by_default": self.on_by_default,
            "kinds": kinds,
            "measured": measured,
        }
        file = folder / FILE
        file.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
        return file
