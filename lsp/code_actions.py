"""The actions for a finding: apply the fix, explain it, ignore it here or everywhere, or dismiss it.

LSP 3.17, Code Action Request. Must not know how findings are made.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lsprotocol import types

from infill.code.syntax import ParsingStopped, SyntaxTree, in_comment
from infill.findings import IGNORE, Range
from infill.lint.style_names import CODE as NAMING
from infill.lint.style_names import rename_places
from infill.printable import one_line
from lsp.diagnostics import SOURCE
from lsp.documents import Snapshot
from lsp.host import Host
from lsp.tracked_findings import TrackedFinding

QUICK_FIX = types.CodeActionKind.QuickFix.value
KINDS = (types.CodeActionKind.QuickFix,)
TREE_S = 1.0  # longest wait for a syntax tree
LONGEST_TITLE = 50  # characters of a replacement shown in a title
MOST_LINES = 5  # lines of a finding that are checked for room for a comment


async def code_actions(server: Host, params: types.CodeActionParams) -> list[types.CodeAction]:
    """The actions for the findings that touch the range; none on a line where another source reports an error."""
    uri, capabilities = params.text_document.uri, server.client_capabilities
    snapshot = server.session.documents.get(uri)
    if snapshot is None or not _is_requested(params.context.only) or not _has_literals(capabilities):
        return []
    start, end = snapshot.offset(params.range.start), snapshot.offset(params.range.end)
    server.diagnostics.visited(uri, start)
    server.read_ahead.rested(uri, start)
    findings = [one for one in server.diagnostics.shown(uri) if one.start <= end and start <= one.end]
    broken = _lines_with_errors(params.context.diagnostics)
    findings = [one for one in findings if broken.isdisjoint(_lines(snapshot, one))]
    if not findings:
        return []
    tree = await server.session.trees.tree(snapshot, TREE_S)
    comments = await asyncio.to_thread(_comments, snapshot, tree, findings) if tree is not None else {}
    ranges = await asyncio.to_thread(_fixed_ranges, tree, findings)
    explains = await server.diagnostics.can_explain()
    if server.session.documents.get(uri) is not snapshot:
        return []
    actions = []
    for finding in findings:
        diagnostic = server.diagnostics.diagnostic(snapshot, finding)
        sent = [one for one in params.context.diagnostics if _is_of(one, finding)] or [diagnostic]
        target = _Target(snapshot, finding, sent, _is_versioned(capabilities))
        actions += _actions(target, ranges[finding], comments.get(finding), explains)
    return actions


@dataclass(frozen=True)
class _Target:
    """A finding and the client's diagnostics for it. versioned: edits may name the document's version."""

    snapshot: Snapshot
    finding: TrackedFinding
    diagnostics: list[types.Diagnostic]
    versioned: bool

    def edit(self, title: str, ranges: Sequence[Range], text: str) -> types.CodeAction:
        """An action that replaces each range [start, end) with `text`."""
        edits = [types.TextEdit(self.snapshot.range(start, end), text) for start, end in ranges]
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
    target: _Target, ranges: Sequence[Range], comment: tuple[int, str] | None, explains: bool
) -> list[types.CodeAction]:
    """ranges: what the fix replaces, empty if it is not possible. comment: offset and text of one that ignores the
    finding, if possible. explains: whether the model can explain findings."""
    finding, uri = target.finding, target.snapshot.uri
    actions = []
    if ranges:
        times = f" in {len(ranges)} places" if len(ranges) > 1 else ""
        fix = target.edit(f"Change to `{_short(finding.replacement)}`{times}", ranges, finding.replacement)
        fix.is_preferred = True
        actions.append(fix)
    if explains:
        actions.append(target.command("Explain", "gesso.lint.explain", uri, finding.number))
    if comment is not None:
        at, text = comment
        actions.append(target.edit("Ignore here", [(at, at)], text))
    actions.append(target.command(f"Ignore this kind ({finding.code})", "gesso.ignoreKind", finding.code))
    actions.append(target.command("Dismiss", "gesso.dismiss", uri, finding.number))
    return actions


def _is_requested(only: Sequence[types.CodeActionKind | str] | None) -> bool:
    """Whether quick fixes are requested. Kinds are hierarchical: `a` includes `a.b`, and "" includes all."""
    kinds = [str(getattr(kind, "value", kind)) for kind in only or ("",)]
    return any(kind == "" or QUICK_FIX == kind or QUICK_FIX.startswith(f"{kind}.") for kind in kinds)


def _has_literals(capabilities: types.ClientCapabilities) -> bool:
    """Whether the client accepts code actions, not only commands."""
    document = capabilities.text_document
    actions = document.code_action if document is not None else None
    return actions is not None and actions.code_action_literal_support is not None


def _lines_with_errors(diagnostics: Iterable[types.Diagnostic]) -> set[int]:
    lines: set[int] = set()
    for one in diagnostics:
        if one.source != SOURCE and one.severity == types.DiagnosticSeverity.Error:
            lines.update(range(one.range.start.line, min(one.range.end.line, one.range.start.line + 1_000) + 1))
    return lines


def _lines(snapshot: Snapshot, finding: TrackedFinding) -> range:
    span = snapshot.range(finding.start, finding.end)
    return range(span.start.line, span.end.line + 1)


def _is_of(diagnostic: types.Diagnostic, finding: TrackedFinding) -> bool:
    data = diagnostic.data
    number = data.get("number") if isinstance(data, dict) else getattr(data, "number", None)
    return diagnostic.source == SOURCE and number == finding.number


def _is_versioned(capabilities: types.ClientCapabilities) -> bool:
    edits = capabilities.workspace.workspace_edit if capabilities.workspace is not None else None
    return edits is not None and bool(edits.document_changes)


def _comments(
    snapshot: Snapshot, tree: SyntaxTree, findings: Iterable[TrackedFinding]
) -> dict[TrackedFinding, tuple[int, str]]:
    """Offset and text of a comment that ignores each finding, at the end of one of its lines. Blocks.

    The grammar decides whether a comment is possible: a line may end in a string or continue after a backslash.
    """
    found: dict[TrackedFinding, tuple[int, str]] = {}
    for finding in findings:
        for line in _lines(snapshot, finding)[:MOST_LINES]:
            bare = snapshot.lines[line].rstrip("\r\n")
            at = snapshot.offset(types.Position(line, 0)) + len(bare)
            comment = f"{'' if bare.endswith(' ') else '  '}{tree.language.line_comment} {IGNORE}"
            if not bare.endswith("\\") and _ends_in_comment(tree, at, comment):
                found[finding] = at, comment
                break
    return found


def _ends_in_comment(tree: SyntaxTree, at: int, comment: str) -> bool:
    """Whether `comment`, inserted at `at`, is read as one."""
    try:
        return in_comment(tree.replaced(at, at, comment), at + len(comment))
    except ParsingStopped:
        return False


def _fixed_ranges(tree: SyntaxTree | None, findings: Iterable[TrackedFinding]) -> dict[TrackedFinding, Sequence[Range]]:
    """What the fix of each finding replaces; renaming a name replaces all its uses. Blocks."""
    found: dict[TrackedFinding, Sequence[Range]] = {}
    for finding in findings:
        if finding.code != NAMING:
            found[finding] = [(finding.start, finding.end)]
        else:
            found[finding] = (rename_places(tree, finding.start, finding.replacement) or []) if tree is not None else []
    return found


def _short(replacement: str) -> str:
    line = one_line(" ".join(replacement.split()))
    return line if len(line) <= LONGEST_TITLE else f"{line[: LONGEST_TITLE - 1]}…"
