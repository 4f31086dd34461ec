"""Arguments of calls after a parameter was added, in code whose arguments are known.

`python -m bench.edits.arguments RELEASE…`, each a folder or an archive. A parameter and its arguments are removed from
a file, then the parameter is put back as the user's edit. Where a variable of its name is visible, that is passed, by
syntax; each call counts. Elsewhere the model writes the argument, as the language server has it written; there a
proposal is right if all its arguments are those that were removed.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track

from bench.lint.releases import read_package
from bench.report import RESULTS, Report, conditions
from engine.errors import UsageError
from infill.cli.support import errors_to_exit_codes
from infill.code.languages import detect
from infill.code.syntax import SyntaxTree, parse
from infill.complete.pipeline import load_model, make_completer
from infill.lint.suppressions import is_skipped
from infill.next_edit.calls import is_argument
from infill.next_edit.change import Change
from infill.next_edit.edits import Proposal, UserEdit, apply
from infill.next_edit.find import MAX_CHARS, next_edits
from infill.next_edit.functions import function_of
from infill.next_edit.grammar import GRAMMARS
from infill.next_edit.history import EditHistory
from infill.next_edit.parameters import removed_parameter
from infill.request import Hole, InfillRequest
from infill.settings import Settings
from lsp.next_edit_text import MOST_BLANKS

THRESHOLDS = (0.0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9)


_WITHIN = re.compile(r"[^()\n]*|[\s,]*")  # the text between two arguments of a call


@dataclass(frozen=True)
class Removal:
    """text: after the edit. removed: the arguments, with their offsets in it."""

    text: str
    proposals: Sequence[Proposal]
    removed: Sequence[tuple[int, str]]


@dataclass(frozen=True)
class Case:
    """text: after the edit. proposal: has blanks. original: the file with all arguments."""

    path: str
    text: str
    proposal: Proposal
    original: str


@dataclass(frozen=True)
class Outcome:
    """What the model wrote, the lowest confidence, and whether the file is as it was."""

    path: str
    reason: str
    texts: Sequence[str]
    confidence: float
    right: bool


def cases(path: str, text: str) -> Iterator[Case]:
    """One for each required parameter that calls in the file pass, if the model has to write its arguments."""
    for one in removals(text):
        for proposal in one.proposals:
            if 0 < len(proposal.blanks) <= MOST_BLANKS and len(proposal.places) == len(one.removed):
                yield Case(path, one.text, proposal, text)


def by_syntax(text: str) -> Iterator[bool | None]:
    """For each argument that was removed, whether the syntax gives it; None if nothing is proposed for its call."""
    for one in removals(text):
        places = [place for proposal in one.proposals if not proposal.blanks for place in proposal.places]
        for offset, argument in one.removed:
            near = min(places, key=lambda place: abs(place.start - offset), default=None)
            if near is not None and not _WITHIN.fullmatch(one.text[slice(*sorted((near.start, offset)))]):
                near = None
            values = [_value(near.text), _value(argument)] if near is not None else []
            yield values[0] == values[1] if values else None


def _value(argument: str) -> str:
    """An argument without commas, white space and its name."""
    return re.sub(r"^\w+=(?!=)", "", "".join(argument.split()).strip(","))


def removals(text: str) -> Iterator[Removal]:
    """One for each required parameter that calls in the file pass."""
    tree = parse(text, "python")
    if tree is None:
        return
    for start, end in _parameters(tree):
        removed, shorter = text[start:end], text[:start] + text[end:]
        changed = parse(shorter, "python")
        if changed is None:
            continue
        found = list(removed_parameter(Change(UserEdit(start, removed, ""), changed)))
        if not found:
            continue
        without = apply(shorter, found[0].places)
        places = found[0].places
        shift = sum(one.start - one.end for one in places if one.start < start)
        history = EditHistory()
        history.changed(without, start + shift, "", removed)
        now = without[: start + shift] + removed + without[start + shift :]
        tree_now = parse(now, "python")
        assert tree_now is not None
        gone = 0
        arguments = []
        for place in places:
            at = place.start - gone + (len(removed) if place.start >= start else 0)
            arguments.append((at, shorter[place.start : place.end]))
            gone += place.end - place.start
        proposals = [one for one in next_edits(tree_now, history.edits, start + shift) if one.kind == "argument"]
        yield Removal(now, proposals, arguments)


def _parameters(tree: SyntaxTree) -> Iterator[tuple[int, int]]:
    """The span to delete for each required parameter but the first, with the comma before it."""
    grammar, pending = GRAMMARS["python"], [tree.root]
    while pending:
        node = pending.pop()
        pending.extend(node.named_children)
        function = function_of(node, [], tree, grammar) if node.type in grammar.definitions else None
        parameters = function.parameters if function is not None else []
        for before, one in zip(parameters, parameters[1:], strict=False):
            if one.kind == "required" and before.kind == "required":
                yield tree.span(before.node).end, tree.span(one.node).end


@errors_to_exit_codes
def main(
    releases: Annotated[list[Path], typer.Argument(metavar="RELEASE…", help="Folders or archives.")],
    model: Annotated[str, typer.Option(help="A code model.")] = "coder",
    most: Annotated[int, typer.Option(help="Cases.")] = 100,
    write: Annotated[bool, typer.Option(help="Write bench/results/edit_arguments.json and .md.")] = False,
) -> None:
    """Measure arguments that the model writes."""
    if not releases:
        raise UsageError("Name a release.")
    chance, found, known = random.Random(0), list[Case](), list[bool | None]()
    for release in releases:
        files = sorted(read_package(release).items())
        for path, text in files:
            if detect(path) == "python" and len(text) < MAX_CHARS // 4 and not is_skipped(path, text):
                known += by_syntax(text)
                inside = list(cases(path, text))
                found += chance.sample(inside, min(3, len(inside)))
    chance.shuffle(found)
    settings = Settings(model=model)
    completer = make_completer(load_model(settings), settings)
    console, outcomes = Console(stderr=True), list[Outcome]()
    for case in track(found[:most], "cases", console=console, transient=True):
        request = InfillRequest(
            apply(case.text, case.proposal.places),
            tuple(Hole(at, at) for at in case.proposal.holes()),
            "python",
            case.path,
            lines="one",
        )
        result = completer.complete(request).completions
        texts = [one.text for one in result]
        usable = all(one.shown and is_argument(one.text, "python") for one in result)
        name = case.proposal.reason.split("`")[1]
        changed = apply(case.text, case.proposal.filled(texts).places)
        right = usable and _plain(changed, name) == _plain(case.original, name)
        confidence = min(one.confidence for one in result) if usable else -1.0
        outcomes.append(Outcome(case.path, case.proposal.reason, texts, confidence, right))
        console.print(f"{right} {confidence:.2f} {case.proposal.reason} {texts}", markup=False)
    result_ = report(model, outcomes, known)
    result_.show()
    if write:
        result_.write("edit_arguments", RESULTS)


def _plain(text: str, name: str) -> str:
    """Without white space, and without the name of keyword arguments."""
    return re.sub(rf"(?<!\w){re.escape(name)}=(?!=)", "", "".join(text.split()))


def report(model: str, outcomes: Sequence[Outcome], known: Sequence[bool | None] = ()) -> Report:
    right = sum(one is True for one in known)
    offered = sum(one is not None for one in known)
    share = f"{100 * right / offered:.0f} %" if offered else "none"
    rows = [["by syntax, each call", f"{offered} of {len(known)}", f"{right} ({share})"]]
    for threshold in THRESHOLDS:
        shown = [one for one in outcomes if one.confidence >= threshold]
        right = sum(one.right for one in shown)
        share = f"{100 * right / len(shown):.0f} %" if shown else "none"
        rows.append(
            [f"by the model, confidence {threshold:g}", f"{len(shown)} of {len(outcomes)}", f"{right} ({share})"]
        )
    notes = [
        "Parameters and their arguments were removed from files; the parameter was put back. Right: the model writes "
        "all arguments of the proposal as they were, apart from white space and the name of a keyword argument."
    ]
    figures = {"outcomes": [asdict(one) for one in outcomes]}
    header = ("arguments", "shown", "right")
    return Report("Arguments of a new parameter", {"model": model, **conditions()}, header, rows, notes, figures)


if __name__ == "__main__":
    typer.run(main)
