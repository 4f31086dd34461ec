"""Arguments of calls after a parameter was added, in code whose arguments are known.

`python -m bench.edits.arguments RELEASE…`, each a folder or an archive. A parameter and its arguments are removed from
a file, then the parameter is put back as the user's edit. Where a variable of its name is visible, Gesso proposes to
pass it. Where it proposes nothing, a code model writes the argument, to measure whether that would be right; Gesso does
not offer it.
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
from infill.next_edit.calls import arguments
from infill.next_edit.change import Change
from infill.next_edit.edits import UserEdit, apply
from infill.next_edit.find import MAX_CHARS, next_edits
from infill.next_edit.functions import function_of
from infill.next_edit.grammar import GRAMMARS
from infill.next_edit.history import EditHistory
from infill.next_edit.parameters import removed_parameter
from infill.request import Hole, InfillRequest
from infill.settings import Settings

THRESHOLDS = (0.0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9)
_WITHIN = re.compile(r"[^()\n]*|[\s,]*")  # the text between two arguments of a call


@dataclass(frozen=True)
class Argument:
    """name: of the parameter. start, end: of the argument in the file, without commas. proposed: what the syntax gives;
    None if nothing is proposed for its call."""

    path: str
    name: str
    start: int
    end: int
    proposed: str | None


@dataclass(frozen=True)
class Outcome:
    """What the model wrote; confidence: -1 if it is not shown or not one argument."""

    path: str
    name: str
    text: str
    confidence: float
    right: bool


def removed_arguments(path: str, text: str) -> Iterator[Argument]:
    """The arguments for required parameters in calls of the same file."""
    tree = parse(text, "python")
    for name, start, end in _parameters(tree) if tree is not None else ():
        removed, shorter = text[start:end], text[:start] + text[end:]
        changed = parse(shorter, "python")
        found = list(removed_parameter(Change(UserEdit(start, removed, ""), changed))) if changed is not None else []
        if not found:
            continue
        without = apply(shorter, found[0].places)
        at = start - sum(one.end - one.start for one in found[0].places if one.start < start)
        history = EditHistory()
        history.changed(without, at, "", removed)
        now = without[:at] + removed + without[at:]
        tree_now = parse(now, "python")
        assert tree_now is not None
        proposals = [one for one in next_edits(tree_now, history.edits, at) if one.kind == "argument"]
        places = [place for proposal in proposals for place in proposal.places]
        gone = 0
        for first, last, _ in found[0].places:
            shift = len(removed) if first >= start else 0
            near = min(places, key=lambda place: abs(place.start - first + gone - shift), default=None)
            between = now[slice(*sorted((near.start, first - gone + shift)))] if near is not None else "()"
            proposed = near.text if near is not None and _WITHIN.fullmatch(between) else None
            argument = shorter[first:last]
            begin = first + shift + len(argument) - len(argument.lstrip(", \r\n\t"))
            yield Argument(path, name, begin, begin + len(argument.strip(", \r\n\t")), proposed)
            gone += last - first


def _parameters(tree: SyntaxTree) -> Iterator[tuple[str, int, int]]:
    """Each required parameter but the first: its name, and the span to delete, with the comma before it."""
    grammar, pending = GRAMMARS["python"], [tree.root]
    while pending:
        node = pending.pop()
        pending.extend(node.named_children)
        function = function_of(node, [], tree, grammar) if node.type in grammar.definitions else None
        parameters = function.parameters if function is not None else []
        for before, one in zip(parameters, parameters[1:], strict=False):
            if one.kind == "required" and before.kind == "required":
                yield one.name, tree.span(before.node).end, tree.span(one.node).end


def plain(argument: str, name: str) -> str:
    """An argument without commas, white space and the name of its parameter."""
    return re.sub(rf"^{re.escape(name)}=(?!=)", "", "".join(argument.split()).strip(","))


def is_argument(text: str, language: str) -> bool:
    """Whether the text is one argument of a call, in one line."""
    call = f"f({text})"
    tree = parse(f"{call}\n", language) if text.strip() and "\n" not in text else None
    if tree is None or tree.root.has_error or tree.root.named_child_count != 1:
        return False
    node = tree.root.named_children[0]
    if node.type == "expression_statement" and node.named_child_count == 1:
        node = node.named_children[0]
    return tree.part(node) == call and node.type in ("call", "call_expression") and len(arguments(node)) == 1


@errors_to_exit_codes
def main(
    releases: Annotated[list[Path], typer.Argument(metavar="RELEASE…", help="Folders or archives.")],
    model: Annotated[str, typer.Option(help="A code model.")] = "coder",
    most: Annotated[int, typer.Option(help="Arguments that the model writes.")] = 100,
    write: Annotated[bool, typer.Option(help="Write bench/results/edit_arguments.json and .md.")] = False,
) -> None:
    """Measure arguments for new parameters."""
    if not releases:
        raise UsageError("Name a release.")
    chance, found, files = random.Random(0), list[Argument](), dict[str, str]()
    for release in releases:
        for name, text in sorted(read_package(release).items()):
            path = f"{release.name}/{name}"
            if detect(path) == "python" and len(text) < MAX_CHARS // 4 and not is_skipped(name, text):
                files[path] = text
                found += removed_arguments(path, text)
    known = [
        plain(one.proposed, one.name) == plain(files[one.path][one.start : one.end], one.name)
        for one in found
        if one.proposed is not None
    ]
    unknown = [one for one in found if one.proposed is None]
    chance.shuffle(unknown)
    settings = Settings(model=model)
    completer = make_completer(load_model(settings), settings) if most else None
    console, outcomes = Console(stderr=True), list[Outcome]()
    for one in track(unknown[:most], "arguments", console=console, transient=True):
        assert completer is not None
        text = files[one.path]
        without = text[: one.start] + text[one.end :]  # the checks refuse the text that a hole has
        request = InfillRequest(without, (Hole(one.start, one.start),), "python", one.path, lines="one")
        (result,) = completer.complete(request).completions
        confidence = result.confidence if result.shown and is_argument(result.text, "python") else -1.0
        right = plain(result.text, one.name) == plain(text[one.start : one.end], one.name)
        outcomes.append(Outcome(one.path, one.name, result.text, confidence, right))
        console.print(f"{right} {confidence:.2f} {one.name}: {result.text}", markup=False)
    table = report(model, len(found), known, outcomes)
    table.show()
    if write:
        table.write("edit_arguments", RESULTS)


def report(model: str, arguments_removed: int, known: Sequence[bool], outcomes: Sequence[Outcome]) -> Report:
    rows = [["a variable of that name", f"{len(known)} of {arguments_removed}", _share(sum(known), len(known))]]
    for threshold in THRESHOLDS:
        shown = [one for one in outcomes if one.confidence >= threshold]
        right = _share(sum(one.right for one in shown), len(shown))
        rows.append([f"the model, confidence {threshold:g}", f"{len(shown)} of {len(outcomes)}", right])
    notes = [
        "Parameters and their arguments were removed from files; the parameter was put back. Right: the argument that "
        "was there, apart from white space and the name of the parameter. The model was asked where no variable of "
        "that name is visible."
    ]
    figures = {"outcomes": [asdict(one) for one in outcomes]}
    header = ("passed", "shown", "right")
    return Report("Arguments of a new parameter", {"model": model, **conditions()}, header, rows, notes, figures)


def _share(part: int, whole: int) -> str:
    return f"{part} ({100 * part / whole:.0f} %)" if whole else "none"


if __name__ == "__main__":
    typer.run(main)
