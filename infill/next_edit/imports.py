"""An import that the last edit made unused, or that it needs."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator

import tree_sitter

from infill.code.syntax import SyntaxTree, imports
from infill.next_edit.change import Change
from infill.next_edit.edits import Place, Proposal
from infill.next_edit.names import NameTable, Occurrence, steps_to, word_spans
from infill.next_edit.rename import are_alike, whole_name

UNUSED_RANK, MISSING_RANK = 0.7, 0.88
MAX_NAMES = 12  # of an edit
_NAME = re.compile(r"(?<![\w.$\"'])[^\W\d]\w*")
_GO_PACKAGES = {
    path.rsplit("/", 1)[-1]: path
    for path in (
        "bufio bytes context errors flag fmt io log math net os path regexp runtime sort strconv strings sync testing "
        "time unicode reflect slices maps encoding/json encoding/hex encoding/base64 encoding/binary net/http net/url "
        "os/exec os/signal path/filepath sync/atomic text/tabwriter unicode/utf8 math/rand io/fs log/slog"
    ).split()
}


def unused_import(change: Change) -> Iterator[Proposal]:
    """The edit removed the last use of an imported name, or put a name like it there that nothing defines."""
    tree = change.after
    if any(step.node.type in tree.language.imports for step in (*change.steps, *change.old_steps)):
        return
    start, old, new = whole_name(change) or (change.edit.start, change.edit.old, change.edit.new)
    gone = dict.fromkeys(_NAME.findall(old))
    for name in list(gone)[:MAX_NAMES]:
        spans = list(word_spans(tree.text, name))
        if len(spans) != 1:
            continue
        found = NameTable(tree, name, change.stop).at(spans[0][0])
        if name == old and _is_successor(change, name, start, new):
            if found is not None and _is_imported_name(found):
                reason = f"Import `{new}` instead of `{name}`."
                yield Proposal("import", (Place(found.start, found.end, new),), reason, MISSING_RANK, change.edit.start)
            continue
        if tree.language.id == "go":
            place = _go_removal(tree, spans[0][0], name)
        else:
            place = _removal(tree, found) if found is not None else None
        if place is not None and not _is_kept(tree, place):
            reason = f"Remove the import of `{name}`, which nothing uses."
            yield Proposal("import", (place,), reason, UNUSED_RANK, change.edit.start)


def _is_successor(change: Change, name: str, start: int, new: str) -> bool:
    """Whether `new`, which the edit puts in the place of a name at `start`, is like it, and nothing defines it."""
    if not _NAME.fullmatch(new) or not are_alike(name, new):
        return False
    if new in change.grammar.keywords or new in change.grammar.known:
        return False
    table = NameTable(change.after, new, change.stop)
    used = table.at(start)
    return used is not None and used.role == "use" and table.is_complete and not table.scopes


def _is_imported_name(found: Occurrence) -> bool:
    """Whether the name is one of those that an import takes out of a module."""
    return found.role == "binding" and any(
        step.node.type in ("import_from_statement", "import_specifier") for step in found.steps
    )


def _go_removal(tree: SyntaxTree, start: int, name: str) -> Place | None:
    """The line of an import without an alias whose path ends with the name at `start`, apart from a version."""
    line, end = tree.text.rfind("\n", 0, start) + 1, tree.text.find("\n", start)
    is_spec = any(step.node.type == "import_spec" for step in steps_to(tree, start, start + 1))
    path = rf'\s*"([^"]*/)?{re.escape(name)}(/v\d+)?"\s*'
    if not is_spec or end < 0 or not re.fullmatch(path, tree.text[line:end]):
        return None
    return Place(line, end + 1, "")


def _is_kept(tree: SyntaxTree, place: Place) -> bool:
    """Whether a comment on the line keeps the import."""
    end = tree.text.find("\n", place.start)
    return "noqa" in tree.text[place.start : end if end >= 0 else len(tree.text)]


def _removal(tree: SyntaxTree, found: Occurrence) -> Place | None:
    """What to delete of an import of one name: the name with a comma, or the whole line."""
    if found.role != "binding":
        return None
    steps = [step.node for step in found.steps]
    kinds = [node.type for node in steps]
    at = next((i for i, kind in enumerate(kinds) if kind in ("import_statement", "import_from_statement")), None)
    if at is None or kinds[at - 1] not in ("module", "program"):
        return None
    statement = steps[at]
    if tree.language.id == "python":
        names = statement.children_by_field_name("name")
        item = steps[at + 1]
    else:
        lists = [node for node in steps if node.type == "named_imports"]
        clause = [node for node in steps if node.type == "import_clause"]
        if (
            not clause
            or (lists and len(clause[0].named_children) > 1)
            or (not lists and len(clause[0].named_children) > 1)
        ):
            return None
        names = lists[0].named_children if lists else clause
        item = steps[steps.index(lists[0]) + 1] if lists else clause[0]
    if item not in names:
        return None
    if len(names) == 1:
        start, end = tree.span(statement)
        start = tree.text.rfind("\n", 0, start) + 1
        line_end = tree.text.find("\n", end)
        if tree.text[end : line_end if line_end >= 0 else None].strip(" ;\r"):
            return None
        return Place(start, line_end + 1 if line_end >= 0 else len(tree.text), "")
    number = names.index(item)
    start, end = tree.span(item)
    if number + 1 < len(names):
        return Place(start, tree.span(names[number + 1]).start, "")
    return Place(tree.span(names[number - 1]).end, end, "")


def missing_import(change: Change) -> Iterator[Proposal]:
    """The edit uses a name that the file does not define: a module of the standard library, or what another import of
    the file or of an open file shows."""
    for name in list(dict.fromkeys(_NAME.findall(change.edit.new)))[:MAX_NAMES]:
        if name in change.grammar.keywords or name in change.grammar.known:
            continue
        place = _import_of(change, name)
        if place is not None:
            reason = f"Import `{name}`."
            yield Proposal("import", (place,), reason, MISSING_RANK, change.edit.start)


def _import_of(change: Change, name: str) -> Place | None:
    tree = change.after
    language = tree.language.id
    if language not in ("python", "go"):
        return None
    table = NameTable(tree, name, change.stop)
    inside = [one for one in table.occurrences if change.edit.start <= one.start < change.edit.end]
    if not inside or not table.is_complete or table.scopes or "import *" in tree.text:
        return None
    if any(one.role != "use" for one in inside):
        return None
    if language == "go":
        return _go_import(tree, name, inside[0])
    is_module = all(one.parent.type == "attribute" and one.steps[-1].field == "object" for one in inside)
    line = next(filter(None, (_shown_import(text, name) for text in change.neighbours)), None)
    if line is None and is_module and name in sys.stdlib_module_names:
        line = f"import {name}"
    if line is None:
        return None
    return _python_place(tree, line)


def _shown_import(text: str, name: str) -> str | None:
    """The line of a file that imports this name alone, without the other names that it imports."""
    match = re.search(rf"^import {re.escape(name)}$", text, re.MULTILINE)
    if match is not None:
        return match[0]
    match = re.search(rf"^from ([\w.]+) import (?:\([^)]*|[^\n(]*)\b{re.escape(name)}\b", text, re.MULTILINE)
    if (
        match is None
        or match[1].startswith(".")
        or f"as {name}" in match[0]
        or f"{name} as" in text[match.start() : match.end() + 4]
    ):
        return None
    return f"from {match[1]} import {name}"


def _python_place(tree: SyntaxTree, line: str) -> Place | None:
    """Where to add an import: into the one of the same module, or in alphabetical order."""
    module = line.split()[1]
    nodes = [node for node in tree.root.children if node.type in tree.language.imports]
    if not nodes:
        return None
    if line.startswith("from "):
        for node in nodes:
            named = node.child_by_field_name("module_name")
            names = node.children_by_field_name("name")
            if named is not None and names and tree.part(named) == module:
                return _into(tree, names, line.split()[-1])
    same = [
        node
        for node in nodes
        if tree.part(node).split()[0] == line.split()[0] and node.type != "future_import_statement"
    ]
    if module in sys.stdlib_module_names:
        same = [node for node in same if _module(tree, node).split(".")[0] in sys.stdlib_module_names]
    later = next((node for node in same if _module(tree, node) > module), None)
    if later is not None:
        start = tree.span(later).start
        return Place(start, start, f"{line}\n")
    if same:
        end = tree.span(_last_of_block(tree, same)).end
        rest = tree.text.find("\n", end)
        end = rest if rest >= 0 else len(tree.text)
        return Place(end, end, f"\n{line}")
    following = [node for node in nodes if node.type != "future_import_statement"]
    if not following:
        return None
    start = tree.span(following[0]).start
    return Place(start, start, f"{line}\n")


def _last_of_block(tree: SyntaxTree, nodes: list[tree_sitter.Node]) -> tree_sitter.Node:
    """The last of these nodes before a blank line."""
    last = nodes[0]
    for node in nodes[1:]:
        if "\n\n" in tree.text[tree.span(last).end : tree.span(node).start]:
            break
        last = node
    return last


def _module(tree: SyntaxTree, node: tree_sitter.Node) -> str:
    return tree.part(node).split()[1]


def _into(tree: SyntaxTree, names: list[tree_sitter.Node], name: str) -> Place:
    before = [node for node in names if tree.part(node).lower() < name.lower()]
    if before:
        end = tree.span(before[-1]).end
        return Place(end, end, f", {name}")
    start = tree.span(names[0]).start
    return Place(start, start, f"{name}, ")


def _go_import(tree: SyntaxTree, name: str, use: Occurrence) -> Place | None:
    path = _GO_PACKAGES.get(name)
    if path is None or use.parent.type != "selector_expression" or use.steps[-1].field != "operand":
        return None
    spans = imports(tree)
    written = tree.text[spans[0].start : spans[-1].end] if spans else ""
    if re.search(rf"[\"/]{re.escape(name)}\"|(?<!\w){re.escape(name)} \"", written):
        return None
    listed = [node for node in tree.root.children if node.type == "import_declaration"]
    specs = [
        spec
        for node in listed
        for inner in node.named_children
        if inner.type == "import_spec_list"
        for spec in inner.named_children
        if spec.type == "import_spec"
    ]
    if not specs:
        return None
    before = [spec for spec in specs if tree.part(spec) < f'"{path}"']
    if before:
        end = tree.span(before[-1]).end
        return Place(end, end, f'\n\t"{path}"')
    start = tree.span(specs[0]).start
    return Place(start, start, f'"{path}"\n\t')
