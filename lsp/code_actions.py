"""What a user can do about a mark: take the replacement, ask why, have it ignored here or everywhere, or dismiss it.

LSP 3.17, Code Action Request. Must not know how marks come about.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lsprotocol import types

from infill.code.syntax import SyntaxTree, in_comment
from infill.findings import IGNORE, Range
from infill.lint.style_names import CODE as NAMING
from infill.lint.style_names import rename_places
from lsp.diagnostics import SOURCE, TREE_S
from lsp.documents import Snapshot
from lsp.marks import Mark

if TYPE_CHECKING:
    from lsp.server import GessoServer

QUICK_FIX = types.CodeActionKind.QuickFix.value
KINDS = (types.CodeActionKind.QuickFix,)
LONGEST_TITLE = 50  # characters of a replacement
MOST_LINES = 5  # of a mark that are tried for a comment


async def code_actions(server: GessoServer, params: types.CodeActionParams) -> list[types.CodeAction]:
    """The actions for the marks that the range touches; none on a line where another source reports an error."""
    uri, capabilities = params.text_document.uri, server.client_capabilities
    snapshot = server.session.documents.get(uri)
    if snapshot is None or not _is_wanted(params.context.only) or not _has_literals(capabilities):
        return []
    start, end = snapshot.offset(params.range.start), snapshot.offset(params.range.end)
    server.diagnostics.looked_at(uri, start)
    marks = [mark for mark in server.diagnostics.marks(uri) if mark.start <= end and start <= mark.end]
    broken = _lines_with_errors(params.context.diagnostics)
    marks = [mark for mark in marks if broken.isdisjoint(_lines(snapshot, mark))]
    if not marks:
        return []
    tree = await server.session.trees.tree(snapshot, TREE_S)
    comments = await asyncio.to_thread(_comments, snapshot, tree, marks) if tree is not None else {}
    places = await asyncio.to_thread(_places, tree, marks)
    explains = await server.diagnostics.can_explain()
    if server.session.documents.get(uri) is not snapshot:
        return []
    actions = []
    for mark in marks:
        diagnostic = server.diagnostics.diagnostic(snapshot, mark)
        given = [one for one in params.context.diagnostics if _is_of(one, mark)] or [diagnostic]
        target = _Target(snapshot, mark, given, _is_versioned(capabilities))
        actions += _actions(target, places[mark], comments.get(mark), explains)
    return actions


@dataclass(frozen=True)
class _Target:
    """A mark, and the diagnostics that the client has for it. versioned: edits may name the document's version."""

    snapshot: Snapshot
    mark: Mark
    diagnostics: list[types.Diagnostic]
    versioned: bool

    def edit(self, title: str, places: Sequence[Range], text: str) -> types.CodeAction:
        """To put `text` in each of the places [start, end)."""
        edits = [types.TextEdit(self.snapshot.range(start, end), text) for start, end in places]
        if self.versioned:
            document = types.OptionalVersionedTextDocumentIdentifier(self.snapshot.uri, self.snapshot.version)
            change = types.WorkspaceEdit(document_changes=[types.TextDocumentEdit(document, [*edits])])
        else:
            change = types.WorkspaceEdit(changes={self.snapshot.uri: edits})
        return types.CodeAction(title, types.CodeActionKind.QuickFix, self.diagnostics, edit=change)

    def command(self, title: str, name: str, *arguments: str | int) -> types.CodeAction:
        command = types.Command(title, name, arguments=list(arguments))
        return types.CodeAction(title, types.CodeActionKind.QuickFix, self.diagnostics, command=command)


def _actions(
    target: _Target, places: Sequence[Range], comment: tuple[int, str] | None, explains: bool
) -> list[types.CodeAction]:
    """places: those that the fix changes, none where it cannot be made. comment: where it would stand, and what it
    would say, where one can. explains: whether the model can be asked why."""
    mark, uri = target.mark, target.snapshot.uri
    actions = []
    if places:
        times = f" in {len(places)} places" if len(places) > 1 else ""
        fix = target.edit(f"Change to `{_short(mark.replacement)}`{times}", places, mark.replacement)
        fix.is_preferred = True
        actions.append(fix)
    if explains:
        actions.append(target.command("Explain", "gesso.lint.explain", uri, mark.number))
    if comment is not None:
        at, text = comment
        actions.append(target.edit("Ignore here", [(at, at)], text))
    actions.append(target.command(f"Ignore this kind ({mark.code})", "gesso.ignoreKind", mark.code))
    actions.append(target.command("Dismiss", "gesso.dismiss", uri, mark.number))
    return actions


def _is_wanted(only: Sequence[types.CodeActionKind | str] | None) -> bool:
    """Kinds are hierarchical: asked for `a`, `a.b` is meant too; the empty one means all."""
    kinds = [str(getattr(kind, "value", kind)) for kind in only or ("",)]
    return any(kind == "" or QUICK_FIX == kind or QUICK_FIX.startswith(f"{kind}.") for kind in kinds)


def _has_literals(capabilities: types.ClientCapabilities) -> bool:
    """Whether the client takes actions that are more than the name of a command."""
    document = capabilities.text_document
    actions = document.code_action if document is not None else None
    return actions is not None and actions.code_action_literal_support is not None


def _lines_with_errors(diagnostics: Iterable[types.Diagnostic]) -> set[int]:
    lines: set[int] = set()
    for one in diagnostics:
        if one.source != SOURCE and one.severity == types.DiagnosticSeverity.Error:
            lines.update(range(one.range.start.line, min(one.range.end.line, one.range.start.line + 1_000) + 1))
    return lines


def _lines(snapshot: Snapshot, mark: Mark) -> range:
    span = snapshot.range(mark.start, mark.end)
    return range(span.start.line, span.end.line + 1)


def _is_of(diagnostic: types.Diagnostic, mark: Mark) -> bool:
    data = diagnostic.data
    number = data.get("number") if isinstance(data, dict) else getattr(data, "number", None)
    return diagnostic.source == SOURCE and number == mark.number


def _is_versioned(capabilities: types.ClientCapabilities) -> bool:
    edits = capabilities.workspace.workspace_edit if capabilities.workspace is not None else None
    return edits is not None and bool(edits.document_changes)


def _comments(snapshot: Snapshot, tree: SyntaxTree, marks: Iterable[Mark]) -> dict[Mark, tuple[int, str]]:
    """For each mark the end of a line of its own where a comment can stand, and that comment; checked by the grammar,
    since a line may end within a string or go on after a backslash. Not for the event loop."""
    found: dict[Mark, tuple[int, str]] = {}
    for mark in marks:
        for line in _lines(snapshot, mark)[:MOST_LINES]:
            bare = snapshot.lines[line].rstrip("\r\n")
            at = snapshot.offset(types.Position(line, 0)) + len(bare)
            comment = f"{'' if bare.endswith(' ') else '  '}{tree.language.line_comment} {IGNORE}"
            if not bare.endswith("\\") and in_comment(tree.replaced(at, at, comment), at + len(comment)):
                found[mark] = at, comment
                break
    return found


def _places(tree: SyntaxTree | None, marks: Iterable[Mark]) -> dict[Mark, Sequence[Range]]:
    """For each mark what changes with it: of a name in another convention every place of it. Not for the event loop."""
    found: dict[Mark, Sequence[Range]] = {}
    for mark in marks:
        if mark.code != NAMING:
            found[mark] = [(mark.start, mark.end)]
        else:
            found[mark] = (rename_places(tree, mark.start, mark.replacement) or []) if tree is not None else []
    return found


def _short(replacement: str) -> str:
    line = " ".join(replacement.split())
    return line if len(line) <= LONGEST_TITLE else f"{line[: LONGEST_TITLE - 1]}…"
