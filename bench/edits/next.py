"""Next edits between adjacent releases of packages, after edits that nothing followed, and after seeded edits.

`python -m bench.edits.next OLD NEW [OLD NEW …]`, each a folder or an archive (.tar.gz, .zip, .whl). In a file that
changed, the first hunk of a function is the user's edit, and the other hunks of the file are what is due. A proposal is
right if it makes the text more like the newer release by all that it changes.
"""

from __future__ import annotations

import difflib
import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import process_time
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track

from bench.edits.seeds import SEEDS, Seed
from bench.lint.releases import read_package
from bench.report import RESULTS, Report, conditions, percentile
from engine.errors import UsageError
from infill.cli.support import errors_to_exit_codes
from infill.code.languages import detect
from infill.code.syntax import SyntaxTree, imports, parse
from infill.lint.suppressions import is_skipped
from infill.next_edit.edits import Proposal, apply
from infill.next_edit.find import MAX_CHARS, next_edits
from infill.next_edit.grammar import GRAMMARS
from infill.next_edit.history import EditHistory

MOST_LINES = 30  # of a hunk that counts as an edit by hand
MOST_STEPS = 8  # hunks of a file that are given one after the other
MOST_SEEDS = 400  # of each kind
_TOKEN = re.compile(r"\w+|[^\w\s]")
_FROM = re.compile(r"\bfrom\s+(\S+(?=\s+import\b)|['\"].*)")

Opcode = tuple[str, int, int, int, int]


@dataclass(frozen=True)
class Outcome:
    """What was offered after an edit. ms: of CPU time. right: None if nothing was due."""

    path: str
    language: str
    edit: str
    kind: str | None
    reason: str | None
    right: bool | None
    ms: float


def changed_files(old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[tuple[str, str, str, str]]:
    """(path, language, old text, new text)."""
    for path in sorted({*old} & {*new}):
        language = detect(path) or ""
        before, after = old[path], new[path]
        if before == after or language not in GRAMMARS or is_skipped(path, before):
            continue
        if max(len(before), len(after)) <= MAX_CHARS:
            yield path, language, before, after


def hunks(old: str, new: str) -> list[Opcode]:
    """The changed ranges of lines."""
    matcher = difflib.SequenceMatcher(None, old.split("\n"), new.split("\n"), autojunk=False)
    return [code for code in matcher.get_opcodes() if code[0] != "equal"]


class Walk:
    """A file of the older release into which hunks of the newer one are put, from the top."""

    def __init__(self, path: str, language: str, old: str, new: str) -> None:
        self.path, self.language, self.text, self.new = path, language, old, new
        self.new_lines, self.history, self.shift = new.split("\n"), EditHistory(), 0

    def take(self, hunk: Opcode) -> str:
        """Applies a hunk below all that were applied; returns its first line."""
        _, first, last, new_first, new_last = hunk
        lines = self.text.split("\n")
        first, last = first + self.shift, last + self.shift
        inserted = self.new_lines[new_first:new_last]
        self.shift += len(inserted) - (last - first)
        removed, added, start = _as_edit(lines, first, last, inserted)
        self.history.changed(self.text, start, removed, added)
        self.text = self.text[:start] + added + self.text[start + len(removed) :]
        return (inserted or [f"-{lines[first]}"])[0].strip()

    def ask(self, edit: str, due: bool, seen: set[frozenset[tuple[str, str]]]) -> Outcome:
        tree = parse(self.text, self.language)
        assert tree is not None
        edits = self.history.edits
        begun = process_time()
        found = next_edits(tree, edits, edits[-1].end if edits else 0)
        ms = 1000 * (process_time() - begun)
        found = [one for one in found if _key(self.text, one) not in seen]
        if not found:
            return Outcome(self.path, self.language, edit, None, None, None, ms)
        seen.add(_key(self.text, found[0]))
        right = is_right(self.text, self.new, found[0], self.language) if due else None
        return Outcome(self.path, self.language, edit, found[0].kind, found[0].reason, right, ms)


def _key(text: str, proposal: Proposal) -> frozenset[tuple[str, str]]:
    return frozenset((text[start:end], new) for start, end, new in proposal.places)


def _as_edit(lines: Sequence[str], first: int, last: int, inserted: Sequence[str]) -> tuple[str, str, int]:
    """Removed and inserted text, and the offset, for whole lines."""
    start = sum(len(line) + 1 for line in lines[:first])
    removed, added = "\n".join(lines[first:last]), "\n".join(inserted)
    if first == last:
        return "", added + "\n", start
    if not inserted:
        return removed + "\n", "", start
    return removed, added, start


def is_right(text: str, target: str, proposal: Proposal, language: str = "python") -> bool:
    """Whether the proposal makes every block of changed lines more like the target by all that it changes. For an
    import: whether the target imports the name, or does not, at any place."""
    if proposal.kind == "import":
        changed = apply(text, proposal.places)
        names = [{*_imported(one, language)} for one in (text, changed, target)]
        return all((name in names[1]) == (name in names[2]) for name in names[0] ^ names[1])
    lines, target_lines = text.split("\n"), target.split("\n")
    matcher = difflib.SequenceMatcher(None, lines, target_lines, autojunk=False)
    codes = [code for code in matcher.get_opcodes() if code[0] != "equal"]
    blocks: dict[Opcode, list[Any]] = {}
    for place in proposal.places:
        first, last = text.count("\n", 0, place.start), text.count("\n", 0, place.end)
        near = [code for code in codes if code[1] <= last + 1 and code[2] >= first]
        if not near:
            return False
        blocks.setdefault(near[0], []).append(place)
    return all(_gains(lines, target_lines, code, places) for code, places in blocks.items())


def _imported(text: str, language: str) -> Iterator[str]:
    """The words in the imports of a file, without the modules that names are taken from."""
    tree = parse(text, language)
    for start, end in imports(tree) if tree is not None else ():
        yield from re.findall(r"\w+", _FROM.sub("", text[start:end]))


def _gains(lines: Sequence[str], target: Sequence[str], code: Opcode, places: Sequence[Any]) -> bool:
    _, first, last, new_first, new_last = code
    first, last, new_first, new_last = max(0, first - 1), last + 1, max(0, new_first - 1), new_last + 1
    begin = sum(len(line) + 1 for line in lines[:first])
    block, wanted = "\n".join(lines[first:last]) + "\n", "\n".join(target[new_first:new_last])
    moved = tuple((start - begin, end - begin, new) for start, end, new in places)
    changed = apply(block, moved)  # type: ignore[arg-type]
    old, new, due = (Counter(filter(None, map(str.strip, text.split("\n")))) for text in (block, changed, wanted))
    if all(new[line] <= due[line] for line in new - old) and all(new[line] >= due[line] for line in old - new):
        return True  # whole lines of the target
    return _distance(changed, wanted) <= _distance(block, wanted) - _distance(block, changed)


def _distance(one: str, other: str) -> int:
    """Tokens that are only in one of both, in order."""
    a, b = _TOKEN.findall(one), _TOKEN.findall(other)
    matcher = difflib.SequenceMatcher(None, a, b, autojunk=False)
    return len(a) + len(b) - 2 * sum(match.size for match in matcher.get_matching_blocks())


def functions(tree: SyntaxTree) -> list[tuple[int, int]]:
    """First and last line of the outermost functions and methods."""
    found, pending = [], [tree.root]
    while pending:
        node = pending.pop()
        if tree.language.scopes.get(node.type) in ("function", "method") and node.is_named:
            found.append((node.start_point[0], node.end_point[0]))
        else:
            pending.extend(node.children)
    return found


def first_hunks(path: str, language: str, old: str, new: str) -> Iterator[Outcome]:
    """After the first hunk of each function; the rest of the file is due."""
    tree = parse(old, language)
    codes = hunks(old, new)
    if tree is None or len(codes) < 2:
        return
    for first, last in functions(tree):
        inside = [code for code in codes if first <= code[1] and code[2] <= last + 1]
        if inside and max(inside[0][2] - inside[0][1], inside[0][4] - inside[0][3]) <= MOST_LINES:
            walk = Walk(path, language, old, new)
            yield walk.ask(walk.take(inside[0]), True, set())


def walks(path: str, language: str, old: str, new: str) -> Iterator[Outcome]:
    """After each hunk from the top of the file; a proposal that came before does not count again."""
    codes = hunks(old, new)
    walk, seen = Walk(path, language, old, new), set[frozenset[tuple[str, str]]]()
    if parse(old, language) is None:
        return
    for code in codes[: min(MOST_STEPS, len(codes) - 1)]:
        edit = walk.take(code)
        yield walk.ask(edit, True, seen)


def lone_hunks(path: str, language: str, old: str, new: str) -> Iterator[Outcome]:
    """After the only hunk of a file."""
    codes = hunks(old, new)
    if len(codes) == 1 and max(codes[0][2] - codes[0][1], codes[0][4] - codes[0][3]) <= MOST_LINES:
        if parse(old, language) is not None:
            walk = Walk(path, language, old, new)
            yield walk.ask(walk.take(codes[0]), False, set())


def seeded(seed: Seed) -> Outcome:
    """right: the best proposal completes the edit everywhere, and changes nothing else."""
    history, text = EditHistory(), seed.text
    for start, old, new in seed.edits:
        history.changed(text, start, old, new)
        text = text[:start] + new + text[start + len(old) :]
    tree = parse(text, "python")
    assert tree is not None
    begun = process_time()
    found = next_edits(tree, history.edits, history.edits[-1].end)
    ms = 1000 * (process_time() - begun)
    right = bool(found) and apply(text, found[0].places) == seed.expected
    kind, reason = (found[0].kind, found[0].reason) if found else (None, None)
    return Outcome(seed.path, "python", seed.edits[-1][2], kind, reason, right, ms)


def report(
    results: Mapping[str, Sequence[Outcome]], seeds: Mapping[str, Sequence[Outcome]], known: Mapping[str, Any]
) -> Report:
    rows = []
    for name, outcomes in results.items():
        kinds = Counter(one.kind for one in outcomes if one.kind)
        for kind in ("all", *sorted(kinds)):
            offered = [one for one in outcomes if one.kind and kind in ("all", one.kind)]
            right = [one for one in offered if one.right]
            is_quiet = name == "nothing due"
            rows.append(
                [
                    name,
                    kind,
                    str(len(outcomes)),
                    f"{len(offered)} ({_percent(len(offered), len(outcomes))})",
                    "" if is_quiet else f"{len(right)} ({_percent(len(right), len(offered))})",
                    _times(outcomes) if kind == "all" else "",
                ]
            )
    for name, outcomes in seeds.items():
        offered = [one for one in outcomes if one.kind]
        right = [one for one in outcomes if one.right]
        shown = f"{len(offered)} ({_percent(len(offered), len(outcomes))})"
        found = f"{len(right)} ({_percent(len(right), len(outcomes))} of all)"
        rows.append([f"seeded {name}", "all", str(len(outcomes)), shown, found, _times(outcomes)])
    quiet = [one for one in results["nothing due"] if not one.kind]
    notes = [
        f"Quiet after {_percent(len(quiet), len(results['nothing due']))} of the edits that nothing followed.",
        "first hunk: the first changed lines of each changed function are the edit; the other hunks of the file are "
        "due. walk: the hunks are given from the top, one after the other. nothing due: the only hunk of a file. "
        "ms: CPU time, median and 95th percentile, without parsing the present text.",
        "A proposal is right only if all its places are.",
    ]
    figures = {
        name: [asdict(one) for one in outcomes if one.kind or name.startswith("seeded")][:200]
        for name, outcomes in {**results, **{f"seeded {name}": found for name, found in seeds.items()}}.items()
    }
    header = ("edits", "kind", "cases", "offered", "right", "ms")
    return Report("Next edits between releases", {**known, **conditions()}, header, rows, notes, figures)


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %" if whole else "none"


def _times(outcomes: Sequence[Outcome]) -> str:
    times = [one.ms for one in outcomes]
    return f"{percentile(times, 0.5):.1f}, {percentile(times, 0.95):.1f}" if times else ""


@errors_to_exit_codes
def main(
    releases: Annotated[list[Path], typer.Argument(metavar="OLD NEW…", help="Folders or archives, in pairs.")],
    write: Annotated[bool, typer.Option(help="Write bench/results/next_edits.json and .md.")] = False,
    verbose: Annotated[bool, typer.Option(help="Print every proposal.")] = False,
) -> None:
    """Measure next edits."""
    if len(releases) % 2:
        raise UsageError("Releases come in pairs, the older one first; add the missing one.")
    pairs = [*zip(releases[::2], releases[1::2], strict=True)]
    measures = {"first hunk": first_hunks, "walk": walks, "nothing due": lone_hunks}
    results: dict[str, list[Outcome]] = {name: [] for name in measures}
    sources: dict[str, str] = {}
    console = Console(stderr=True)
    for old, new in track(pairs, "releases", console=console, transient=True):
        older, newer = read_package(old), read_package(new)
        sources |= {f"{new.name}/{path}": text for path, text in newer.items() if detect(path) == "python"}
        for file in changed_files(older, newer):
            for name, measure in measures.items():
                results[name] += measure(*file)
    chance = random.Random(0)
    seeds: dict[str, list[Outcome]] = {}
    for kind, make in SEEDS.items():
        found = [
            seed for path, text in sorted(sources.items()) if len(text) < MAX_CHARS for seed in make(path, text, chance)
        ]
        chance.shuffle(found)
        seeds[kind] = [seeded(seed) for seed in track(found[:MOST_SEEDS], kind, console=console, transient=True)]
    known = {"releases": ", ".join(f"{old.name} {new.name}" for old, new in pairs)}
    result = report(results, seeds, known)
    result.show()
    if verbose:
        for name, outcomes in {**results, **seeds}.items():
            for one in outcomes:
                if one.kind or (name in SEEDS and not one.right):
                    console.print(f"{name}: {one.right} {one.path}: {one.edit[:70]} -> {one.reason}", markup=False)
    if write:
        result.write("next_edits", RESULTS)


if __name__ == "__main__":
    typer.run(main)
