"""A member was added to an enum, a union or a family of classes: the code that handles each of the others follows.

Such code is a row of nodes, such as the arms of a `match`, the pairs of a dictionary or the elements of a list, with
one node per member. It is due only if all rows are the same apart from the name of the member, in any style of letters.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import tree_sitter

from engine.errors import leave_if
from infill.code.syntax import Span, SyntaxTree
from infill.next_edit.change import Change
from infill.next_edit.edits import Place, Proposal
from infill.next_edit.names import MAX_OCCURRENCES, steps_to, word_spans

RANK = 0.85
LEAST_MEMBERS = 2  # besides the new one
MOST_MEMBERS = 60
MOST_LEVELS = 8  # from a name up to the node of a row that handles it
MOST_CHARS = 2_000  # of such a node
_ENUM = re.compile(r"\w*(Enum|Flag)\b")
_SEPARATOR = re.compile(r"[\s,;]*")
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_CLASSES = frozenset(("class_definition", "class_declaration", "abstract_class_declaration"))
_WRAPPERS = frozenset(("decorated_definition", "export_statement"))
_NOT_ROWS = frozenset(
    "argument_list arguments parameters formal_parameters parameter_list import_from_statement import_statement "
    "named_imports expression_list pattern_list concatenated_string string".split()
)


@dataclass(frozen=True)
class _Members:
    """names: in order, with the new one at `index`. owner: what comes before a name elsewhere, as in `Color.RED`.
    spans: of the declarations."""

    names: Sequence[str]
    index: int
    owner: str
    spans: Sequence[Span]

    @property
    def new(self) -> str:
        return self.names[self.index]

    @property
    def others(self) -> list[str]:
        return [name for index, name in enumerate(self.names) if index != self.index]

    @property
    def example(self) -> str:
        """The member with the most words, whose styles of letters are the clearest."""
        return max(self.others, key=lambda name: len(_WORDS.findall(name)))


def new_case(change: Change) -> Iterator[Proposal]:
    members = _members(change)
    if members is None:
        return
    tree, example = change.after, members.example
    places: set[Place] = set()
    for number, (start, end) in enumerate(word_spans(tree.text, example)):
        leave_if(change.stop)
        if number == MAX_OCCURRENCES:
            return
        owned = tree.text[:start].endswith(members.owner) if members.owner else True
        if owned and not any(one.start <= start < one.end for one in members.spans):
            places |= {*_in_row(tree, members, start, end)}
    if places:
        what = f"{len(places)} places" if len(places) > 1 else "1 place"
        reason = f"Handle `{members.new}` in {what} like `{example}`."
        yield Proposal("case", tuple(sorted(places)), reason, RANK, change.edit.start)


def _in_row(tree: SyntaxTree, members: _Members, start: int, end: int) -> Iterator[Place]:
    """The node to add to the row that has the name at [start, end)."""
    steps = steps_to(tree, start, end)
    for level in range(len(steps) - 1, max(0, len(steps) - 1 - MOST_LEVELS), -1):
        node, parent = steps[level].node, steps[level - 1].node
        if node.end_byte - node.start_byte > MOST_CHARS:
            return
        if parent.type in _NOT_ROWS or not node.is_named:
            continue
        texts = {tree.part(one): one for one in parent.named_children if one.type == node.type}
        form = tree.part(node)
        expected = [_renamed(form, members.example, name) for name in members.others]
        row = [texts[one] for one in expected if one in texts]
        if len({one.id for one in row}) < len(members.others):
            continue
        added = _renamed(form, members.example, members.new)
        if added is not None and added not in texts:
            yield from _added(tree, row, members.index, added)
        return


def _added(tree: SyntaxTree, row: Sequence[tree_sitter.Node], index: int, text: str) -> Iterator[Place]:
    """`text` before the node at `index` of the row; after the last one if the row has another order."""
    spans = sorted(tree.span(one) for one in row)
    gaps = {tree.text[one.end : other.start] for one, other in zip(spans, spans[1:], strict=False)}
    gap = gaps.pop()
    if gaps or not gap or not _SEPARATOR.fullmatch(gap):
        return
    if spans != [tree.span(one) for one in row]:
        index = len(row)
    if index:
        at = spans[index - 1].end
        yield Place(at, at, gap + text)
    else:
        at = spans[0].start
        yield Place(at, at, text + gap)


def _renamed(text: str, old: str, new: str) -> str | None:
    """The text with the name replaced in each style of letters in which it is written; None if a style is not certain,
    as that of `red` for the name `DARK_GREEN`."""
    forms: dict[str, list[str]] = {old: [new]}
    for style in _STYLES:
        if before := style(old):
            forms.setdefault(before, [])
            if before != old and style(new) not in forms[before]:
                forms[before].append(style(new))
    is_certain = True

    def replacement(match: re.Match[str]) -> str:
        nonlocal is_certain
        left, right = text[match.start() - 1 : match.start()], text[match.end() : match.end() + 1]
        found = forms[match[0]]
        if len(found) > 1 and re.match(r"\w", left + right):
            found = [one for one in found if one.isidentifier() and ("_" in one) == ("_" in left + right)]
        is_certain = is_certain and len(found) == 1
        return found[0] if found else ""

    pattern = "|".join(_pattern(form) for form in sorted(forms, key=len, reverse=True))
    renamed = re.sub(pattern, replacement, text)
    return renamed if is_certain else None


def _pattern(name: str) -> str:
    """A pattern for a name, also as a word of another one, as in `visitRed` and `red_value`."""
    if name[0].isupper() and not name.isupper():
        return rf"(?<![A-Z]){re.escape(name)}(?![a-z])"
    return rf"(?<![A-Za-z]){re.escape(name)}(?![A-Za-z])"


def _joined(between: str, change: Callable[[str], str]) -> Callable[[str], str]:
    return lambda name: between.join(change(word) for word in _WORDS.findall(name))


def _camel(name: str) -> str:
    words = _WORDS.findall(name)
    return "".join([*(word.lower() for word in words[:1]), *(word.capitalize() for word in words[1:])])


_STYLES: tuple[Callable[[str], str], ...] = (
    _joined("_", str.lower),
    _joined("_", str.upper),
    _joined("-", str.lower),
    _joined(" ", str.lower),
    _joined(" ", str.capitalize),
    lambda name: " ".join(_WORDS.findall(name)).lower().capitalize(),
    _joined("", str.capitalize),
    _camel,
)


def _members(change: Change) -> _Members | None:
    """The members of the declaration that the edit added one to."""
    if change.edit.old.strip() or not change.edit.new.strip():
        return None
    tree = change.after
    for index in range(len(change.steps) - 1, -1, -1):
        node = change.steps[index].node
        around = change.steps[index - 1].node if index else None
        for owner, found in _declared(tree, node, around, change):
            added = [one for one in found if change.edit.start <= tree.span(one).start < change.edit.end]
            if len(added) != 1 or not LEAST_MEMBERS < len(found) <= MOST_MEMBERS:
                continue
            names = [_name(tree, one) for one in found]
            if len({*names}) < len(names):
                continue
            spans = [tree.span(node)] if owner or node.type not in ("module", "program") else []
            spans = spans or [_definition(tree, one) for one in found]
            return _Members(names, found.index(added[0]), owner, spans)
    return None


def _name(tree: SyntaxTree, node: tree_sitter.Node) -> str:
    return tree.part(node).strip("\"'`")


def _definition(tree: SyntaxTree, name: tree_sitter.Node) -> Span:
    """The span of the class with this name."""
    node = name.parent
    return tree.span(node if node is not None else name)


def _declared(
    tree: SyntaxTree, node: tree_sitter.Node, around: tree_sitter.Node | None, change: Change
) -> Iterator[tuple[str, list[tree_sitter.Node]]]:
    """The nodes with the names of members that `node` declares, and their owner."""
    if node.type == "block" and around is not None and around.type == "class_definition":
        bases, name = around.child_by_field_name("superclasses"), around.child_by_field_name("name")
        if bases is not None and name is not None and _ENUM.search(tree.part(bases)):
            yield f"{tree.part(name)}.", list(_assigned(node))
    elif node.type == "enum_body" and around is not None:
        name = around.child_by_field_name("name")
        if name is not None:
            found = [one.child_by_field_name("name") or one for one in node.named_children if one.type != "comment"]
            yield f"{tree.part(name)}.", found
    elif node.type == "const_declaration":
        specs = [one for one in node.named_children if one.type == "const_spec"]
        names = [name for one in specs if (name := one.child_by_field_name("name")) is not None]
        if specs and "iota" in tree.part(specs[0]):
            yield "", [name for name in names if tree.part(name) != "_"]
    elif node.type == "type_alias_declaration":
        value = node.child_by_field_name("value")
        if value is not None and value.type == "union_type":
            yield "", list(_literals(value))
    elif node.type in ("module", "program"):
        yield "", _family(tree, node, change)


def _assigned(block: tree_sitter.Node) -> Iterator[tree_sitter.Node]:
    for statement in block.named_children:
        inner = statement.named_children[0] if statement.type == "expression_statement" else statement
        name = inner.child_by_field_name("left") if inner.type == "assignment" else None
        if name is not None and name.type == "identifier":
            yield name


def _literals(union: tree_sitter.Node) -> Iterator[tree_sitter.Node]:
    """The strings of a union of string literals."""
    for one in union.named_children:
        if one.type == "union_type":
            yield from _literals(one)
        elif one.type == "literal_type" and one.named_children and one.named_children[0].type == "string":
            yield one.named_children[0]


def _family(tree: SyntaxTree, module: tree_sitter.Node, change: Change) -> list[tree_sitter.Node]:
    """The names of the classes with the same base as the class that the edit added."""
    named: list[tuple[str, tree_sitter.Node]] = []
    for node in module.named_children:
        inner = node.named_children[-1] if node.type in _WRAPPERS and node.named_children else node
        name = inner.child_by_field_name("name") if inner.type in _CLASSES else None
        bases = inner.child_by_field_name("superclasses")
        bases = bases or next((one for one in inner.named_children if one.type == "class_heritage"), None)
        if name is not None and bases is not None:
            named.append((tree.part(bases), name))
    added = [base for base, name in named if change.edit.start <= tree.span(name).start < change.edit.end]
    return [name for base, name in named if len(added) == 1 and base == added[0]]
