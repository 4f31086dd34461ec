"""Samples of lint that need no model."""

from infill.lint.kinds import Edit
from infill.lint.linter import EditCandidate
from infill.lint.thresholds import EditEvidence
from train.held_out import HeldOutFile
from train.lint.samples import Bug, Found, Sample

CODE = """class Shop:
    def __init__(self, items, limit):
        self.items = items
        self.limit = limit

    async def total(self, rate, ready):
        if not ready:
            await self.load(rate, 1)
        x_min = self.box.x_min + x_pad
        y_min = self.box.y_min + y_pad
        print(f"at {rate}")
        if rate < 2 and ready:
            return self.scale(rate, ready)
"""


def file(text: str = CODE) -> HeldOutFile:
    return HeldOutFile("project", "a.py", "python", text)


def found(gain: float, at: int = 0, code: str = "wrong-name", **evidence: float) -> Found:
    edit = Edit(6 * at, 6 * at + 5, "z", code)
    return Found(EditCandidate(edit, EditEvidence(edit_gain=gain, **evidence)), "limit", at + 1)


def seeded(gain: float, right: bool = True, project: str = "project") -> Sample:
    """A wrong name with one candidate, which fixes it or does not."""
    bug = Bug("wrong-name", 3, "limit", "items", [found(gain)], 0 if right else None)
    return Sample(project, "a.py", "python", 0, 20, 2, 0.1, [], [bug])


def clean(*gains: float, lines: int = 1000, project: str = "project", language: str = "python") -> Sample:
    """Code with a candidate for each gain, all in different positions."""
    candidates = [found(gain, at) for at, gain in enumerate(gains)]
    return Sample(project, "b.py", language, 0, lines, 10, 1.0, candidates, None)
