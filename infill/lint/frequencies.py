"""What counting says for an edit: which names the file uses how often, where, and beside what.

Works on text and a survey of its tree. Must not know the model.
"""

from __future__ import annotations

import builtins
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from infill.lint.kinds import Edit
from infill.lint.symbols import Function, Survey

_BUILTINS = frozenset(dir(builtins))
_WORD = re.compile(r"\w+|[^\w\s]+")


@dataclass(frozen=True)
class Habit:
    """See `infill.lint.thresholds.LintEvidence`, whose fields these are."""

    unused: float
    orphan: float
    lonely: float
    defined: float
    commoner: float
    again: float
    twice: float
    habit: float
    dropped: float
    given: float
    update: float
    reads: float
    nearer: float


class Habits:
    """Of one text."""

    def __init__(self, survey: Survey) -> None:
        self.survey, self.text = survey, survey.tree.text
        self.python = survey.tree.language.id == "python"
        self.roles = {name.start: name.role for name in survey.names}
        self.words: Counter[str] = Counter()
        self.pairs: Counter[tuple[str, str]] = Counter()
        for line in self.text.split("\n"):
            words = _WORD.findall(line)
            self.words.update(words)
            self.pairs.update(pairwise(words))

    def of(self, edit: Edit) -> Habit:
        """What speaks for `edit`."""
        old, new = self.text[edit.start : edit.end], edit.replacement
        start, end = self.text.rfind("\n", 0, edit.start) + 1, self.text.find("\n", edit.end)
        end = len(self.text) if end < 0 else end
        before = _WORD.findall(self.text[start:end])
        after = _WORD.findall(self.text[start : edit.start] + new + self.text[edit.end : end])
        index = self.survey.function_at(edit.start, edit.end)
        visible = self.survey.visible(index, edit.start)
        return Habit(
            unused=float(new in visible and self._reads(index, new) == 0),
            orphan=float(old in visible and self._reads(index, old) == 1),
            lonely=float(self.words[old] == 1),
            defined=float(self._defined(edit, old, visible)),
            commoner=math.log1p(self.words[new]) - math.log1p(max(0, self.words[old] - 1)),
            again=float(new in before),
            twice=float(before.count(old) > 1),
            habit=self._habit(before, after),
            **self._variables(index, edit, old, new),
        )

    def _variables(self, index: int, edit: Edit, old: str, new: str) -> dict[str, float]:
        """What a function does with the two variables; zeros where they are none."""
        was, now = self._holder(index, old), self._holder(index, new)
        if was is None or now is None:
            return dict.fromkeys(("dropped", "given", "update", "reads", "nearer"), 0.0)
        line = self.text[self.text.rfind("\n", 0, edit.start) + 1 : edit.start]
        distances = [
            math.log1p(self._lines_between(at.bound[name], edit.start)) for at, name in ((was, old), (now, new))
        ]
        return {
            "dropped": float(now.reads[new] == 0 and new not in now.parameters),
            "given": float(new in now.parameters) - float(old in was.parameters),
            "update": float(bool(re.match(rf"\s*{re.escape(old)}\s*=(?!=)", line))),
            "reads": math.log1p(now.reads[new]) - math.log1p(max(0, was.reads[old] - 1)),
            "nearer": distances[0] - distances[1],
        }

    def _lines_between(self, start: int, end: int) -> int:
        return self.text.count("\n", min(start, end), end)

    def _holder(self, function: int, name: str) -> Function | None:
        """The function whose variable it is."""
        while function >= 0:
            own = self.survey.functions[function]
            if name in own.bound:
                return own
            function = own.outer
        return None

    def _defined(self, edit: Edit, old: str, visible: Mapping[str, int]) -> bool:
        """Whether what stands there has its origin in the file: a variable of the function, or of the whole file."""
        if self.roles.get(edit.start) in ("use", "call"):
            known = old in visible or old in self.survey.shared or (self.python and old in _BUILTINS)
            return known or self.survey.is_open
        return old in self.survey.bound

    def _reads(self, function: int, name: str) -> int:
        holder = self._holder(function, name)
        return holder.reads[name] if holder is not None else 0

    def _habit(self, before: list[str], after: list[str]) -> float:
        """By how much commoner in this file, in logarithms, the pairs of words are that come than those that go."""
        was, now = Counter(pairwise(before)), Counter(pairwise(after))
        come = [math.log1p(self.pairs[pair]) for pair in (now - was)]
        go = [math.log1p(max(0, self.pairs[pair] - was[pair])) for pair in (was - now)]
        return sum(come) / max(1, len(come)) - sum(go) / max(1, len(go))
