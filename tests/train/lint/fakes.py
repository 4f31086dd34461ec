"""Samples of lint that need no model."""

import random

from infill.lint.kinds import Edit
from infill.lint.linter import EditCandidate
from infill.lint.thresholds import EditEvidence
from train.held_out import HeldOutFile
from train.lint.samples import CleanSample, SeededSample
from train.lint.seeded_bugs import seed_bug

CODE = """class Shop:
    def __init__(self, items, limit):
        self.items = items
        self.limit = limit

    async def total(self, rate, ready):
        if not ready:
            await self.load(rate, 1)
        x_min = self.box.x_min + x_pad
        y_min = self.box.y_min + y_pad
        if rate < 2 and ready:
            return self.scale(rate, ready)
"""


def file(text: str = CODE) -> HeldOutFile:
    return HeldOutFile("project", "a.py", "python", text)


def seeded(gain: float, right: bool = True) -> SeededSample:
    """A wrong name with one candidate, which fixes it or does not."""
    bug = seed_bug(CODE, "python", "wrong-name", random.Random(1))
    assert bug is not None
    edit = Edit(bug.start, bug.end, bug.right if right else "nonsense", "wrong-name")
    return SeededSample(file(bug.text), bug, 0.1, [EditCandidate(edit, EditEvidence(edit_gain=gain))])


def clean(*gains: float, lines: int = 1000) -> CleanSample:
    """Code with a candidate for each gain, all in different positions."""
    candidates = [
        EditCandidate(Edit(6 * index, 6 * index + 5, "z", "wrong-name"), EditEvidence(edit_gain=gain))
        for index, gain in enumerate(gains)
    ]
    return CleanSample(file("limit\n" * len(gains)), lines, 10, 1.0, candidates)
