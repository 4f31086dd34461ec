"""What speaks for an edit, and the bars that it must clear: a logistic model for each kind, learnt with the model.

`lint.json` beside the model's weights holds them (train/lint/thresholds.py writes it). Must not know how evidence is
gathered.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from engine.errors import ModelError
from infill.lint.kinds import KINDS

FILE = "lint.json"
MOST = 12.0


@dataclass(frozen=True)
class LintEvidence:
    """Of an edit.

    In nats: own, what the replacement gains over what stands there, by the text before and far below; after, what the
    text behind it gains; surprise, how unlikely what stands there is; hidden, what the replacement gains where the
    denoiser sees neither. longer: tokens.
    By counting (0 or 1 unless said otherwise): unused, the variable put in is read nowhere else; orphan, the variable
    it replaces is read nowhere else; lonely, what stands there stands nowhere else in the file; defined, that has
    its origin in the file; commoner, by how much (log) the replacement is more frequent in the file; again,
    the replacement stands in the line already; twice, so does what it replaces; habit, how much oftener (log) the file
    has the replacement between such neighbours. Of two variables: dropped, as unused, for one that is no parameter;
    given, whether the replacement is a parameter less whether the other is; update, what it replaces gets a new value
    from itself; reads, how much oftener (log) the replacement is read; nearer, by how much (log lines) closer it got
    its value.
    By the names of many projects: familiar, how known what stands there is, 0 to 3 (infill/lint/names.py).
    By places (infill/lint/slots.py): fits, how much oftener (log) the replacement stands in such a place; named, by how
    much more it is called what is wanted there, -1 to 1; akin, whether it stands elsewhere as a member where this is
    one, and of the same object, 0 to 2; crossed, by how much more exchanged arguments are called what their parameters
    are, -2 to 2; turned, how much oftener (log) other calls have them the other way round; unlike, whether one
    is written out and the other is not, 2 for both; strange, whether neither this file nor many projects know what is
    called.
    """

    own: float = 0.0
    after: float = 0.0
    surprise: float = 0.0
    hidden: float = 0.0
    unused: float = 0.0
    orphan: float = 0.0
    lonely: float = 0.0
    defined: float = 0.0
    commoner: float = 0.0
    again: float = 0.0
    twice: float = 0.0
    habit: float = 0.0
    longer: float = 0.0
    familiar: float = 0.0
    fits: float = 0.0
    named: float = 0.0
    akin: float = 0.0
    crossed: float = 0.0
    turned: float = 0.0
    unlike: float = 0.0
    strange: float = 0.0
    dropped: float = 0.0
    given: float = 0.0
    update: float = 0.0
    reads: float = 0.0
    nearer: float = 0.0

    def values(self) -> dict[str, float]:
        """Every field by name, none beyond MOST either way: one rare name must not outweigh all else."""
        return {name: max(-MOST, min(MOST, getattr(self, name))) for name in _FIELDS}

    @property
    def gain(self) -> float:
        """By how much the whole is likelier with the edit, in nats."""
        return self.own + self.after


_FIELDS = tuple(field.name for field in fields(LintEvidence))


@dataclass(frozen=True)
class Bar:
    """For one kind: log-odds = intercept + weights * evidence; findings are shown from `least` on, where `shown`."""

    weights: Mapping[str, float]
    intercept: float
    least: float
    shown: bool = True

    def odds(self, evidence: LintEvidence) -> float:
        """Log-odds that the edit mends a bug, on the scale of the data that the bar was learnt from."""
        values = evidence.values()
        return self.intercept + sum(weight * values[name] for name, weight in self.weights.items())


@dataclass(frozen=True)
class Bars:
    """bars: by the code of the kind. languages: where they were measured; elsewhere nothing is shown.

    unasked: whether what they let through is good enough to be shown to people who did not ask for it.
    """

    bars: Mapping[str, Bar]
    languages: frozenset[str]
    unasked: bool = False

    @staticmethod
    def read(folder: Path) -> Bars | None:
        """The bars of the model in `folder`; None where it has none, ModelError where they cannot be read."""
        file = folder / FILE
        if not file.is_file():
            return None
        try:
            content = json.loads(file.read_text("utf-8"))
            bars = {
                code: Bar(dict(one["weights"]), float(one["intercept"]), float(one["least"]), bool(one["shown"]))
                for code, one in content["kinds"].items()
                if code in KINDS
            }
            return Bars(bars, frozenset(content["languages"]), bool(content.get("unasked", False)))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(
                f"{file} cannot be read ({error}); fetch the model again with `gesso model pull`."
            ) from error

    def write(self, folder: Path, measured: Mapping[str, object]) -> Path:
        """Stores them with the figures that they were measured with."""
        kinds = {
            code: {
                "shown": bar.shown,
                "least": round(bar.least, 4),
                "intercept": round(bar.intercept, 4),
                "weights": {name: round(weight, 4) for name, weight in bar.weights.items()},
            }
            for code, bar in self.bars.items()
        }
        content = {"languages": sorted(self.languages), "unasked": self.unasked, "kinds": kinds, "measured": measured}
        file = folder / FILE
        file.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
        return file
