"""Seeded bugs, samples of held-out code, bars learnt from them, and changes between releases."""

import gzip
import json
import random
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from bench.lint.releases import Outcome, kinds_that_make, one_line_changes, read_package, releases_report
from bench.lint.run import Measured, alone, baseline, easier_for, measure
from engine.errors import InputError
from infill.code.syntax import parse
from infill.findings import LintRequest
from infill.lint.kinds import KINDS, Edit
from infill.lint.linter import Judged, Linter
from infill.lint.thresholds import Bar, Bars, LintEvidence
from train.held_out import HeldOutFile
from train.lint.names import NAMES, WORDS, known_names, names_by_project
from train.lint.samples import CleanSample, SeededSample, judge, kinds_of
from train.lint.seeded_bugs import seed_bug
from train.lint.thresholds import NEVER, Scores, fit, learn, scores, set_bars, unseen_scores

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


@pytest.mark.parametrize("code", sorted(KINDS))
def test_every_kind_can_be_seeded_and_mended(code: str) -> None:
    bug = seed_bug(CODE, "python", code, random.Random(1))
    assert bug is not None and bug.code == code
    assert bug.text != CODE and bug.mended == CODE
    tree = parse(bug.text, "python")
    assert tree is not None and not tree.root.has_error
    assert bug.scope[0] <= bug.start < bug.end <= bug.scope[1] <= len(bug.text)


def test_seeds_repeat_and_broken_code_gets_none() -> None:
    assert seed_bug(CODE, "python", "wrong-name", random.Random(3)) == seed_bug(
        CODE, "python", "wrong-name", random.Random(3)
    )
    assert seed_bug("def f(:\n", "python", "wrong-name", random.Random(1)) is None
    assert seed_bug("x = 1\n", "python", "wrong-name", random.Random(1)) is None


def file(text: str = CODE) -> HeldOutFile:
    return HeldOutFile("project", "a.py", "python", text)


def judged(own: float, start: int = 0, new: str = "z", code: str = "wrong-name") -> Judged:
    return Judged(Edit(start, start + 5, new, code), LintEvidence(own=own))


def seeded(own: float, right: bool = True) -> SeededSample:
    bug = seed_bug(CODE, "python", "wrong-name", random.Random(1))
    assert bug is not None
    edit = Edit(bug.start, bug.end, bug.right if right else "nonsense", "wrong-name")
    return SeededSample(file(bug.text), bug, 0.1, [Judged(edit, LintEvidence(own=own))])


def clean(*owns: float, lines: int = 1000) -> CleanSample:
    text = "limit\n" * len(owns)
    return CleanSample(file(text), lines, 10, 1.0, [judged(own, 6 * index) for index, own in enumerate(owns)])


def test_a_fit_ranks_what_mends_above_what_does_not() -> None:
    noise = random.Random(1)
    right = [LintEvidence(own=noise.gauss(4, 1), habit=noise.gauss(0, 1)) for _ in range(60)]
    wrong = [LintEvidence(own=noise.gauss(-2, 1), habit=noise.gauss(0, 1)) for _ in range(200)]
    bar = fit(right, wrong)
    assert bar.weights["own"] > 0.5 and abs(bar.weights["habit"]) < 0.5 and bar.weights["hidden"] == 0
    assert bar.odds(LintEvidence(own=4)) > 0 > bar.odds(LintEvidence(own=-2))


def test_alarms_go_where_they_find_most() -> None:
    good = Scores([5.0, 1.0], [4.0, 3.0, 2.0, 0.0], 4)
    poor = Scores([5.0, 4.0, 3.0], [0.5], 4)
    bars = set_bars({"good": good, "poor": poor}, 2)
    assert 1.0 < bars["good"] < 2.0 and bars["poor"] == NEVER
    assert good.recall(bars["good"]) == 0.75 and poor.recall(bars["poor"]) == 0


def test_a_bar_above_all_clean_code_still_costs_an_alarm() -> None:
    one = Scores([5.0], [6.0, 4.0], 2)
    assert set_bars({"one": one}, 0)["one"] == NEVER
    assert set_bars({"one": one}, 1)["one"] == pytest.approx(5.001)
    assert set_bars({"one": one}, 2)["one"] == 4.0
    many = Scores([], [float(number) for number in range(100)], 100)
    assert set_bars({"many": many}, 1)["many"] == 5.0
    assert set_bars({"one": Scores([], [], 2)}, 3)["one"] == NEVER


def test_bars_keep_to_the_alarms_that_are_allowed() -> None:
    noise = random.Random(2)
    bugs = [seeded(noise.gauss(3, 1)) for _ in range(40)]
    files = [clean(*(noise.gauss(-1, 1.5) for _ in range(50))) for _ in range(10)]
    bars = learn(files, bugs, per_thousand=0.5)
    ranked = scores(bars["wrong-name"], "wrong-name", files, bugs)
    assert bars["wrong-name"].shown and sum(score >= bars["wrong-name"].least for score in ranked.alarms) <= 5
    assert ranked.recall(bars["wrong-name"].least) > 0.3
    assert set(bars) == {"wrong-name"}


def test_bars_are_set_by_fits_that_did_not_see_the_project() -> None:
    """In each project another kind of evidence misleads; a fit that saw it would know."""
    projects = []
    for name in ("one", "two", "three"):
        own = [replace(bug, file=replace(bug.file, project=name)) for bug in [seeded(3.0) for _ in range(12)]]
        files = [clean(*(0.0 for _ in range(20))), clean(3.0)]
        projects.append((own, [replace(one, file=replace(one.file, project=name)) for one in files]))
    bugs = [bug for own, _ in projects for bug in own]
    files = [one for _, own in projects for one in own]
    odd = Judged(Edit(0, 5, "z", "wrong-name"), LintEvidence(own=-6.0, habit=9.0))
    files.append(replace(files[-1], judged=[odd], file=replace(files[-1].file, project="four")))
    bar = fit([one.evidence for bug in bugs for one in bug.judged], [one.evidence for f in files for one in f.judged])
    alone = fit(
        [one.evidence for bug in bugs for one in bug.judged], [one.evidence for f in files[:-1] for one in f.judged]
    )
    ranked = unseen_scores(bar, "wrong-name", files, bugs)
    assert len(ranked.alarms) == len(scores(bar, "wrong-name", files, bugs).alarms) and ranked.bugs == 36
    assert any(alarm == pytest.approx(alone.odds(odd.evidence), abs=1e-4) for alarm in ranked.alarms)
    assert alone.odds(odd.evidence) != pytest.approx(bar.odds(odd.evidence), abs=1e-2)


def test_kinds_that_clean_code_hardly_has_learn_from_the_others() -> None:
    bugs = [seeded(3.0) for _ in range(40)]
    others = [
        replace(one, edit=replace(one.edit, code="misspelled")) for one in clean(*(-1.0 for _ in range(60))).judged
    ]
    bars = learn([replace(clean(), lines=5000, judged=others)], bugs, per_thousand=1.0)
    assert bars["wrong-name"].shown and bars["wrong-name"].weights["own"] > 0


class Counting:
    """A linter that finds nothing, and counts how often it is asked."""

    asked = 0

    def judge(self, request: LintRequest, codes: Sequence[str]) -> list[Judged]:
        self.asked += 1
        return []


def test_samples_are_kept_for_the_same_choice(tmp_path: Path) -> None:
    one, kept = Counting(), tmp_path / "samples"
    files = [file()]
    first = judge(one, files, 10, 1, 3, ("wrong-name",), kept)  # type: ignore[arg-type]
    asked = one.asked
    assert asked == 2 and [bug.bug.code for bug in first.seeded] == ["wrong-name"]
    again = judge(one, files, 10, 1, 3, ("wrong-name",), kept)  # type: ignore[arg-type]
    assert again.seeded[0].bug == first.seeded[0].bug and one.asked == asked
    assert judge(one, files, 10, 1, 4, ("wrong-name",), kept).choice["seed"] == 4  # type: ignore[arg-type]
    assert one.asked == 2 * asked
    assert kinds_of(None) == tuple(KINDS) and kinds_of(["misspelled"]) == ("misspelled",)
    with pytest.raises(InputError, match="wrong-nmae"):
        kinds_of(["wrong-nmae"])


def test_names_count_once_in_every_project(tmp_path: Path) -> None:
    rows = [
        {"split": split, "project": project, "language": "python", "text": text}
        for split, project, text in (
            *(("train", f"p{number}", "foo_count = foo_count\n") for number in range(NAMES)),
            ("train", "p0", "only only only bar\n"),
            *(("valid", f"v{number}", "secret\n") for number in range(WORDS)),
        )
    ]
    with gzip.open(tmp_path / "files-000.jsonl.gz", "wt") as out:
        out.write("".join(json.dumps(row) + "\n" for row in rows))
    known, made = known_names(names_by_project(tmp_path))
    assert made == {"projects": NAMES, "names": 1, "words": 0, "common": 0}
    assert "foo_count" in known.names and "only" not in known.names and "secret" not in known.names
    with pytest.raises(InputError, match="no corpus"):
        names_by_project(tmp_path / "none")


def test_a_kind_that_finds_nothing_is_off() -> None:
    bugs = [seeded(0.0) for _ in range(40)]
    bars = learn([clean(*(0.0 for _ in range(50)))], bugs, per_thousand=1.0)
    assert not bars["wrong-name"].shown


class Select(Linter):
    """Needs no model for what was judged before."""

    def __init__(self, bars: Bars) -> None:
        self.bars = bars


def by_own(least: float) -> Linter:
    return Select(Bars({"wrong-name": Bar({"own": 1.0}, 0.0, least)}, frozenset({"python"})))


def test_measures_count_what_is_shown() -> None:
    bugs = [seeded(3.0), seeded(3.0, right=False), seeded(1.0)]
    rows = measure(by_own(2.0), [clean(5.0, 1.0, lines=500)], bugs)
    assert rows["wrong-name"] == Measured(3, 2, 2, 1, 1, 500, 10)
    assert rows["all"] == rows["wrong-name"] and rows["misspelled"].alarms == 0
    assert rows["all"].per_thousand == 2.0 and rows["all"].recall == pytest.approx(2 / 3)
    assert measure(by_own(2.0), [clean(5.0, 1.0)], bugs, easier=1.0)["all"].found == 3


def test_bars_are_lowered_as_far_as_the_alarms_allow() -> None:
    files = [clean(5.0, 1.0, -1.0), clean(0.0)]
    assert easier_for(by_own(2.0), files, 1) == pytest.approx(1.0, abs=0.1)
    assert easier_for(by_own(2.0), files, 3) == pytest.approx(3.0, abs=0.1)


def test_a_kind_alone_with_all_the_alarms() -> None:
    bugs = [seeded(3.0), seeded(3.0, right=False), seeded(0.5), seeded(-3.0)]
    files = [clean(5.0, 1.0)]
    assert [alone(by_own(2.0), files, bugs, count)["wrong-name"] for count in (0, 1, 2)] == [0, 0.25, 0.75]


def test_precision_is_that_of_one_bug_in_a_hundred_functions() -> None:
    assert Measured(10, 10, 5, 5, 1, 1000, 200).precision == pytest.approx(0.5)
    assert Measured(10, 10, 0, 0, 0, 1000, 200).precision is None


def test_a_baseline_has_as_many_alarms() -> None:
    def rate(sample: CleanSample | SeededSample) -> list[tuple[float, Edit]]:
        return [(one.evidence.own, one.edit) for one in sample.judged]

    files = [clean(5.0, 4.0, 1.0)]
    bugs = [seeded(4.5), seeded(4.5, right=False), seeded(3.0)]
    assert baseline("own", files, bugs, 1, rate).found == 2
    assert baseline("own", files, bugs, 0, rate).found == 0
    assert baseline("own", files, bugs, 2, rate).right == 2


def test_one_line_changes_are_small_and_of_code() -> None:
    old = {"a.py": "def f(a, b):\n    x = 1\n    return a < b\n", "b.py": "x = 1\n", "gone.py": "x = 1\n"}
    new = {"a.py": "def f(a, b):\n    x = 1\n    return a <= b\n", "b.py": "x = 1  # one\n"}
    (change,) = one_line_changes(old, new)
    assert (change.path, change.number, change.lines) == ("a.py", 3, ("    return a < b", "    return a <= b"))
    assert not [*one_line_changes({"a.py": "x = 'a'\n"}, {"a.py": "x = 'b'\n"})]
    assert not [*one_line_changes({"a.py": "x = 1\n"}, {"a.py": "y.z(1, 2, 3, 4)\n"})]


def test_changes_that_an_edit_makes() -> None:
    old = {"a.py": "def f(left, right):\n    g(left, right)\n    return left + left\n"}
    for new, codes in (
        ("return left + right", ["wrong-name"]),
        ("return left - left", ["wrong-operator"]),
        ("return left + 2 * left", []),
    ):
        (change,) = one_line_changes(old, {"a.py": old["a.py"].replace("return left + left", new)})
        assert kinds_that_make(change) == codes
    (change,) = one_line_changes(old, {"a.py": old["a.py"].replace("g(left, right)", "g(right, left)")})
    assert kinds_that_make(change) == ["swapped-arguments"]


def test_releases_are_counted_by_kind() -> None:
    right = Outcome("a.py", "x", "y", ["wrong-name"], ["wrong-name"], True, [], 1, True)
    quiet = replace(right, near=[], right=False, others=2, reached=False)
    wrong = replace(right, codes=["misspelled"], right=False, near=["wrong-name"], after=["wrong-name"])
    report = releases_report(9, [right, quiet, wrong], {"wrong-name", "misspelled"}, {})
    assert [row[1:] for row in report.rows] == [
        ["1", "1", "0", "0", "1"],
        ["2", "1", "1", "1", "0"],
        ["3", "2", "2", "1", "1"],
    ]
    assert "9 one-line changes" in report.notes[0] and "4 findings elsewhere" in report.notes[0]


def test_packages_are_read_from_folders_and_archives(tmp_path: Path) -> None:
    folder = tmp_path / "pkg-1.0"
    (folder / "pkg").mkdir(parents=True)
    (folder / "pkg" / "a.py").write_bytes(b"x = 1\r\n")
    (folder / "README").write_text("no code")
    (folder / "pkg" / "bad.py").write_bytes(b"\xff")
    archive = tmp_path / "pkg-1.0.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, "pkg-1.0")
    assert read_package(folder) == read_package(archive) == {"pkg/a.py": "x = 1\n"}
    with pytest.raises(InputError, match="no folder or archive"):
        read_package(tmp_path / "none.tar.gz")
