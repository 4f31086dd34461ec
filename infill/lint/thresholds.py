"""Evidence for an edit, and when it is strong enough to show: one logistic model with a threshold per kind of finding.

FILE has them by model; train/lint/thresholds.py writes it. Must not know how the evidence is computed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from engine.errors import ModelError
from engine.files import read_json_object
from infill.lint.kinds import KINDS

FILE = Path(__file__).parents[1] / "models" / "lint.json"
MODEL = "coder"  # whose thresholds serve for models without any
CLAMP = 12.0
_GROUPS = {"tsx": "typescript"}


@dataclass(frozen=True)
class EditEvidence:
    """For an edit that replaces `old` by `new`. Gains are in nats, ratios are differences of log counts, everything
    else is 0 or 1 unless noted. 0 means that nothing is known."""

    # by the model (infill/lint/judge.py)
    edit_gain: float = 0.0  # log p(new) - log p(old), given the text before
    suffix_gain: float = 0.0  # the same for the tokens after the edit
    surprisal: float = 0.0  # -log p(old)
    extra_tokens: float = 0.0  # tokens of new - tokens of old
    first_gain: float = 0.0  # edit_gain of the first token that differs
    rank: float = 0.0  # log of 1 + the number of edits here that make the text likelier
    margin: float = 0.0  # gain of the whole text over the best other text here
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
    # by the operands around the edit (infill/lint/operands.py)
    operand_change: float = 0.0  # 1: two equal operands become different; -1: two different ones become equal

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
    """For one kind: log-odds = intercept + weights * evidence. minimums: by language, what a finding needs to be
    shown; languages without one show none."""

    weights: Mapping[str, float]
    intercept: float
    minimums: Mapping[str, float]

    def log_odds(self, evidence: EditEvidence) -> float:
        """Log-odds that the edit fixes a bug, on the scale of the training data."""
        values = evidence.values()
        return self.intercept + sum(weight * values[name] for name, weight in self.weights.items())


@dataclass(frozen=True)
class Thresholds:
    """kinds: by code. on_by_default: whether the findings are good enough to show in an editor without being asked."""

    kinds: Mapping[str, Threshold]
    on_by_default: bool = False

    @property
    def languages(self) -> frozenset[str]:
        """The languages that have findings."""
        groups = {group for threshold in self.kinds.values() for group in threshold.minimums}
        return frozenset(groups | {language for language, group in _GROUPS.items() if group in groups})

    def shown(self, language: str | None) -> frozenset[str]:
        """The codes of the kinds that have findings in a language."""
        group = language_group(language)
        return frozenset(code for code, threshold in self.kinds.items() if group in threshold.minimums)

    @staticmethod
    def read(model: str, file: Path = FILE) -> Thresholds | None:
        """The thresholds that ship for a model, by its name; for a model without any, those of MODEL, which are not on
        by default. None if there are none. Raises ModelError if the file is damaged."""
        if not file.is_file():
            return None
        try:
            shipped = read_json_object(file)
            content = shipped.get(model) or shipped.get(MODEL)
            if content is None:
                return None
            kinds = {
                code: Threshold(dict(one["weights"]), float(one["intercept"]), dict(one["minimums"]))
                for code, one in content["kinds"].items()
                if code in KINDS
            }
            return Thresholds(kinds, bool(content["on_by_default"]) and model in shipped)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(f"{file} cannot be read ({error}); install Gesso again.") from error

    def write(self, model: str, measured: Mapping[str, object], file: Path = FILE) -> None:
        """Stores them for a model, with the figures `measured` on the training data."""
        kinds = {
            code: {
                "minimums": {language: round(one, 4) for language, one in threshold.minimums.items()},
                "intercept": round(threshold.intercept, 4),
                "weights": {name: round(weight, 4) for name, weight in threshold.weights.items() if weight},
            }
            for code, threshold in self.kinds.items()
        }
        shipped = read_json_object(file) if file.is_file() else {}
        shipped[model] = {"on_by_default": self.on_by_default, "kinds": kinds, "measured": measured}
        file.write_text(json.dumps(shipped, indent=1) + "\n", "utf-8")


def language_group(language: str | None) -> str | None:
    """The language whose thresholds apply."""
    return _GROUPS.get(language, language) if language is not None else None
