"""Evidence by counting: how often and near what the file uses the names that an edit exchanges.

Works on text and a symbol table. Must not know the model.
"""

from __future__ import annotations

import builtins
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from engine.errors import Stop, pacer
from infill.lint.kinds import Edit
from infill.lint.symbols import Function, SymbolTable

_BUILTINS = frozenset(dir(builtins))
_WORD = re.compile(r"\w+|[^\w\s]+")


@dataclass(frozen=True)
class FrequencyEvidence:
    """Fields of `infill.lint.thresholds.EditEvidence`."""

    new_unread: float
    old_read_once: float
    old_occurs_once: float
    old_defined: float
    count_ratio: float
    new_in_line: float
    old_repeats_in_line: float
    bigram_ratio: float
    new_unread_local: float
    parameter_change: float
    is_update: float
    read_ratio: float
    distance_ratio: float


class Frequencies:
    """Counts for one file. stop: polled; once it returns True, Cancelled is raised."""

    def __init__(self, symbols: SymbolTable, stop: Stop | None = None) -> None:
        self.symbols, self.text = symbols, symbols.tree.text
        self.is_python = symbols.tree.language.id == "python"
        self.roles = {name.start: name.role for name in symbols.names}
        self.words: Counter[str] = Counter()
        self.bigrams: Counter[tuple[str, str]] = Counter()
        pace = pacer(stop)
        for line in self.text.split("\n"):
            pace()
            words = _WORD.findall(line)
            self.words.update(words)
            self.bigrams.update(pairwise(words))

    def evidence(self, edit: Edit) -> FrequencyEvidence:
        old, new = self.text[edit.start : edit.end], edit.replacement
        start, end = self.text.rfind("\n", 0, edit.start) + 1, self.text.find("\n", edit.end)
        end = len(self.text) if end < 0 else end
        before = _WORD.findall(self.text[start:end])
        after = _WORD.findall(self.text[start : edit.start] + new + self.text[edit.end : end])
        function = self.symbols.function_at(edit.start, edit.end)
        visible = self.symbols.visible(function, edit.start)
        return FrequencyEvidence(
            new_unread=float(new in visible and self._reads(function, new) == 0),
            old_read_once=float(old in visible and self._reads(function, old) == 1),
            old_occurs_once=float(self.words[old] == 1),
            old_defined=float(self._is_defined(edit, old, visible)),
            count_ratio=math.log1p(self.words[new]) - math.log1p(max(0, self.words[old] - 1)),
            new_in_line=float(new in before),
            old_repeats_in_line=float(before.count(old) > 1),
            bigram_ratio=self._bigram_ratio(before, after),
            **self._compare_variables(function, edit, old, new),
        )

    def _compare_variables(self, function: int, edit: Edit, old: str, new: str) -> dict[str, float]:
        """How the function uses the two variables; zeros unless both are variables."""
        old_owner, new_owner = self._owner(function, old), self._owner(function, new)
        if old_owner is None or new_owner is None:
            return dict.fromkeys(
                ("new_unread_local", "parameter_change", "is_update", "read_ratio", "distance_ratio"), 0.0
            )
        line = self.text[self.text.rfind("\n", 0, edit.start) + 1 : edit.start]
        old_distance, new_distance = (
            math.log1p(self._lines_between(owner.bound[name], edit.start))
            for owner, name in ((old_owner, old), (new_owner, new))
        )
        return {
            "new_unread_local": float(new_owner.reads[new] == 0 and new not in new_owner.parameters),
            "parameter_change": float(new in new_owner.parameters) - float(old in old_owner.parameters),
            "is_update": float(bool(re.match(rf"\s*{re.escape(old)}\s*=(?!=)", line))),
            "read_ratio": math.log1p(new_owner.reads[new]) - math.log1p(max(0, old_owner.reads[old] - 1)),
            "distance_ratio": old_distance - new_distance,
        }

    def _lines_between(self, start: int, end: int) -> int:
        return self.text.count("\n", min(start, end), end)

    def _owner(self, function: int, name: str) -> Function | None:
        """The function that binds the variable."""
        while function >= 0:
            inner = self.symbols.functions[function]
            if name in inner.bound:
                return inner
            function = inner.outer
        return None

    def _is_defined(self, edit: Edit, old: str, visible: Mapping[str, int]) -> bool:
        """Whether the file defines the old name: as a variable of the function, or for the whole file."""
        if self.roles.get(edit.start) in ("use", "call"):
            is_builtin = self.is_python and old in _BUILTINS
            return old in visible or old in self.symbols.shared or is_builtin or self.symbols.is_open
        return old in self.symbols.bound

    def _reads(self, function: int, name: str) -> int:
        owner = self._owner(function, name)
        return owner.reads[name] if owner is not None else 0

    def _bigram_ratio(self, before: list[str], after: list[str]) -> float:
        """Mean log count in the file of the word pairs that the edit adds, less that of the pairs it removes."""
        old, new = Counter(pairwise(before)), Counter(pairwise(after))
        added = [math.log1p(self.bigrams[pair]) for pair in (new - old)]
        removed = [math.log1p(max(0, self.bigrams[pair] - old[pair])) for pair in (old - new)]
        return sum(added) / max(1, len(added)) - sum(removed) / max(1, len(removed))
