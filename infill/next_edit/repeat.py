"""The last replacement, made by hand at one or two places: the others like it in the file.

A replacement becomes a pattern: its node before the edit, in which arguments and objects that the edit kept may be any
code. Names of functions and members, keywords and operators must be the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import tree_sitter

from engine.errors import Stop, leave_if
from infill.code.syntax import SyntaxTree
from infill.next_edit.change import Change
from infill.next_edit.edits import Place, Proposal, UserEdit, trimmed
from infill.next_edit.names import MAX_OCCURRENCES, NameTable, Occurrence, Step, steps_to, word_spans

RANK, RANK_OF_TWO = 0.6, 0.9
MAX_EXAMPLES = 4
MAX_NODE = 400  # characters of a pattern
LEAST_LETTERS = 3  # of a name that a pattern is searched by
MOST_NEW_NAMES = 1  # in the new form of code that is repeated after one example
RICH = 3  # least number of tokens of a text that is repeated after one example
_WORD = re.compile(r"[^\W\d]\w*")
_TOKEN = re.compile(r"\w+|[^\w\s]")
_VALUES = frozenset("identifier attribute member_expression selector_expression subscript subscript_expression".split())
_TYPES = frozenset("type type_annotation generic_type type_arguments".split())
_SPACE = re.compile(r"\s+")
_TOO_WIDE = frozenset(
    "argument_list arguments parameters formal_parameters parameter_list block statement_block module program "
    "source_file class_body expression_list pattern_list string_content string_fragment string_start string_end "
    "interpreted_string_literal_content statement_list ERROR "
    "decorated_definition function_definition class_definition function_declaration method_definition "
    "method_declaration class_declaration import_statement import_from_statement import_declaration import_spec "
    "import_clause named_imports import_specifier dotted_name literal_value field_declaration_list interface_body "
    "typed_parameter typed_default_parameter default_parameter keyword_argument required_parameter optional_parameter "
    "parameter_declaration try_statement object dictionary list array tuple switch_body type_spec "
    "export_statement".split()
)
_LITERAL_FIELDS = frozenset(("function", "constructor", "attribute", "property", "field", "name", "key", "operator"))
_OBJECT_FIELDS = frozenset(("object", "operand"))
_NOT_HOLES = frozenset("argument_list arguments keyword_argument pair comment type_arguments keyed_element".split())


@dataclass(frozen=True)
class _Example:
    """One replacement: the nodes before and after it."""

    change: Change
    old: Step
    new: tree_sitter.Node
    old_steps: Sequence[Step]


@dataclass(frozen=True)
class _Pattern:
    """type: of the node. hole: the number of the hole that this node is. is_object: whether
    it is the object of a member. text: of a leaf that must be the same."""

    type: str
    hole: int | None = None
    is_object: bool = False
    text: str = ""
    children: tuple[_Pattern, ...] = ()

    def matches(self, node: tree_sitter.Node, tree: SyntaxTree, found: dict[int, str]) -> bool:
        if self.hole is not None:
            text = tree.part(node)
            return found.setdefault(self.hole, text) == text
        if node.type != self.type:
            return False
        if not self.children:
            return not node.named_child_count and tree.part(node) == self.text
        children = [child for child in node.children if child.type != "comment"]
        if len(children) != len(self.children):
            return False
        return all(one.matches(child, tree, found) for one, child in zip(self.children, children, strict=True))


def repeat(change_of: Callable[[UserEdit, UserEdit], Change], edits: Sequence[UserEdit]) -> Iterator[Proposal]:
    """edits: oldest first, by hand."""
    examples = []
    for edit in reversed(edits[-MAX_EXAMPLES:]):
        found = _example(change_of(trimmed(edit), edit))
        if found is not None:
            examples.append(found)
    seen: set[tuple[str, str]] = set()
    for number, example in enumerate(examples):
        others = [one for index, one in enumerate(examples) if index != number]
        source = example.change.before.part(example.old.node), example.change.after.part(example.new)
        if source in seen:
            continue
        seen.add(source)
        proposal = _of_leaf(example, others, edits) if _is_leaf(example) else _of_pattern(example, others, edits)
        if proposal is not None:
            yield proposal


def _example(change: Change) -> _Example | None:
    """The smallest nodes before and after that the edit turned into each other."""
    edit = change.edit
    if not edit.new.strip() and not edit.old.strip():
        return None
    if len(edit.old) > MAX_NODE or len(edit.new) > MAX_NODE:
        return None
    old_steps = _around(change.before, edit.start, change.old_end)
    new_steps = _around(change.after, edit.start, edit.end)
    growth = len(edit.new) - len(edit.old)
    new_spans = {change.after.span(step.node): step.node for step in new_steps}
    for index in range(len(old_steps) - 1, 0, -1):
        node = old_steps[index].node
        span = change.before.span(node)
        new = new_spans.get((span.start, span.end + growth))  # type: ignore[call-overload]
        if span.start > edit.start or span.end < change.old_end or new is None:
            continue
        if node.type in _TOO_WIDE or new.type in _TOO_WIDE or not node.is_named:
            if node.type.endswith(("definition", "declaration")) or "import" in node.type:
                return None
            continue
        if node.has_error or new.has_error or span.end - span.start > MAX_NODE:
            return None
        if _is_text(change.before, old_steps[: index + 1]) or _code(change.before, node) == _code(change.after, new):
            return None
        return _Example(change, old_steps[index], new, old_steps[: index + 1])
    return None


def _is_text(tree: SyntaxTree, steps: Sequence[Step]) -> bool:
    """Whether the last of these nodes is a string of several lines, or in one: a docstring, a query, a template."""
    nodes = [step.node for step in steps]
    last = nodes[-1]
    nodes += last.named_children if last.named_child_count == 1 else []
    return any(one.type in tree.language.strings and one.start_point[0] < one.end_point[0] for one in nodes)


def _code(tree: SyntaxTree, node: tree_sitter.Node) -> list[str]:
    """The tokens without comments."""
    return [tree.part(one) for one in _nodes(node) if not one.child_count and one.type not in tree.language.comments]


def _around(tree: SyntaxTree, start: int, end: int) -> list[Step]:
    """The nodes around a range; for an empty one those around its neighbours."""
    if start == end:
        start, end = max(0, start - 1), min(len(tree.text), end + 1)
    return steps_to(tree, start, end)


def _is_leaf(example: _Example) -> bool:
    return not example.old.node.named_child_count


def _of_leaf(example: _Example, others: Sequence[_Example], edits: Sequence[UserEdit]) -> Proposal | None:
    """The same name or literal, replaced twice in the same role."""
    change = example.change
    old, new = change.before.part(example.old.node), change.after.part(example.new)
    same = [
        one for one in others if one.change.before.part(one.old.node) == old and one.change.after.part(one.new) == new
    ]
    if not same or not _WORD.fullmatch(old) or old in change.grammar.known or old in _WORD.findall(new):
        return None
    table = NameTable(change.before, old, change.stop)
    source = table.at(change.before.span(example.old.node).start)
    if source is None or not table.is_complete or source.role in ("binding", "other"):
        return None
    alike = [one for one in table.occurrences if _is_alike(one, source, table)]
    places = [change.place(one.start, one.end, new) for one in alike if one is not source]
    return _proposal([one for one in places if one is not None], example, edits, 2)


def _is_alike(one: Occurrence, source: Occurrence, table: NameTable) -> bool:
    if one.role != source.role:
        return False
    return one.role != "use" or table.scope_of(one) == table.scope_of(source)


def _of_pattern(example: _Example, others: Sequence[_Example], edits: Sequence[UserEdit]) -> Proposal | None:
    change = example.change
    tree = change.before
    holes: dict[str, int] = {}
    kept = {change.after.part(node) for node in _nodes(example.new)}
    kept.discard(tree.part(example.old.node))
    pattern = _pattern(example.old.node, None, tree, kept, holes)
    template = _template(example.new, change.after, holes)
    explained = [found for one in others if (found := _explained(pattern, template, one)) is not None]
    count = 1 + len(explained)
    objects = {number: text for text, number in holes.items() if number in _objects(pattern)}
    same = {number: text for number, text in objects.items() if all(one[number] == text for one in explained)}
    if count == 1 and not _is_clear(example):
        return None
    word = max(_literals(pattern), key=len, default="")
    if len(word) < LEAST_LETTERS:
        return None
    old_text = tree.part(example.old.node)
    places = []
    for node in _candidates(change.after, word, pattern.type, change.stop):
        found = dict(same)
        if not pattern.matches(node, change.after, found) or node.has_error:
            continue
        start, end = change.after.span(node)
        text = change.after.text[start:end]
        produced = _filled(template, found)
        if "\n" in text and "\n" not in old_text or _is_done(change.after.text, start, text, produced):
            continue
        if count == 1 and text != old_text:
            continue
        places.append(Place(start, end, produced))
    return _proposal(places, example, edits, count)


def _is_clear(example: _Example) -> bool:
    """Whether one example is enough: the code is not a plain value that becomes another one, nor wrapped, and its new
    form has names of the old one, in any case of letters, and at most one more. Not if arguments are added to code of
    several lines, or removed from it: such code has values of its own."""
    old, new = example.change.before.part(example.old.node), example.change.after.part(example.new)
    is_value = example.old.node.type in _VALUES and example.new.type != example.old.node.type
    in_type = any(step.node.type in _TYPES for step in example.old_steps)
    keywords = example.change.grammar.keywords
    before, after = ({name.lower() for name in _WORD.findall(text) if name not in keywords} for text in (old, new))
    tokens, new_tokens = (_TOKEN.findall(text) for text in (old, new))
    if "\n" in old.strip() and (_is_part(tokens, new_tokens) or _is_part(new_tokens, tokens)):
        return False
    is_form = bool(before & after) and len(after - before) <= MOST_NEW_NAMES
    return (in_type or not is_value) and old not in new and is_form and len(tokens) >= RICH


def _is_part(few: Sequence[str], many: Sequence[str]) -> bool:
    """Whether `many` has all of `few` in order."""
    rest = iter(many)
    return all(one in rest for one in few)


def _proposal(places: Sequence[Place], example: _Example, edits: Sequence[UserEdit], examples: int) -> Proposal | None:
    left = sorted({one for one in places if not any(_touches(one, edit) for edit in edits)})
    disjoint: list[Place] = []
    for one in left:
        if not disjoint or disjoint[-1].end <= one.start:
            disjoint.append(one)
    if not disjoint:
        return None
    change = example.change
    old, new = (_short(one) for one in (change.before.part(example.old.node), change.after.part(example.new)))
    times = f"{len(disjoint)} more places" if len(disjoint) > 1 else "1 more place"
    reason = f"Change {times} like `{old}` to `{new}`."
    rank = RANK_OF_TWO if examples > 1 else RANK
    return Proposal("repeat", tuple(disjoint), reason, rank, change.edit.start)


def _touches(place: Place, edit: UserEdit) -> bool:
    return place.start <= edit.end and edit.start <= place.end


def _short(text: str) -> str:
    line = _SPACE.sub(" ", text)
    return line if len(line) <= 40 else f"{line[:39]}…"


def _nodes(root: tree_sitter.Node) -> Iterator[tree_sitter.Node]:
    pending = [root]
    while pending:
        node = pending.pop()
        yield node
        pending.extend(reversed(node.children))


def _pattern(
    node: tree_sitter.Node, field: str | None, tree: SyntaxTree, kept: set[str], holes: dict[str, int]
) -> _Pattern:
    """kept: texts of the nodes after the edit. holes: is filled with the texts that may differ."""
    text = tree.part(node)
    is_free = node.is_named and node.type not in _NOT_HOLES and field not in _LITERAL_FIELDS
    if is_free and text in kept and text not in ("self", "cls", "this"):
        return _Pattern(node.type, holes.setdefault(text, len(holes)), field in _OBJECT_FIELDS)
    children = [(index, child) for index, child in enumerate(node.children) if child.type != "comment"]
    if not node.named_child_count:
        return _Pattern(node.type, text=text)
    parts = (_pattern(child, node.field_name_for_child(index), tree, kept, holes) for index, child in children)
    return _Pattern(node.type, children=tuple(parts))


def _template(node: tree_sitter.Node, tree: SyntaxTree, holes: dict[str, int]) -> list[str | int]:
    """The text of a node in parts: literal text, and numbers of holes."""
    found: list[tuple[int, int, int]] = []
    pending = [node]
    while pending:
        one = pending.pop()
        number = holes.get(tree.part(one)) if one.is_named else None
        if number is not None:
            found.append((*tree.span(one), number))
        else:
            pending.extend(one.children)
    start, end = tree.span(node)
    parts: list[str | int] = []
    for first, last, number in sorted(found):
        parts += [tree.text[start:first], number]
        start = last
    return [*parts, tree.text[start:end]]


def _filled(template: Sequence[str | int], found: dict[int, str]) -> str:
    return "".join(part if isinstance(part, str) else found.get(part, "") for part in template)


def _explained(pattern: _Pattern, template: Sequence[str | int], other: _Example) -> dict[int, str] | None:
    """The texts of the holes if the pattern turns the old code of another example into its new code."""
    found: dict[int, str] = {}
    if not pattern.matches(other.old.node, other.change.before, found):
        return None
    return found if _filled(template, found) == other.change.after.part(other.new) else None


def _objects(pattern: _Pattern) -> set[int]:
    """The holes that are the object of a member. If all examples have the same object, others are not meant."""
    found = {pattern.hole} if pattern.is_object and pattern.hole is not None else set()
    return found.union(*(_objects(child) for child in pattern.children))


def _literals(pattern: _Pattern) -> Iterator[str]:
    if pattern.hole is None and not pattern.children:
        yield from _WORD.findall(pattern.text)
    for child in pattern.children:
        yield from _literals(child)


def _candidates(tree: SyntaxTree, word: str, kind: str, stop: Stop | None) -> Iterator[tree_sitter.Node]:
    """The nodes of this type around each occurrence of a word."""
    seen = set()
    for number, (start, end) in enumerate(word_spans(tree.text, word)):
        leave_if(stop)
        if number == MAX_OCCURRENCES:
            return
        for step in reversed(steps_to(tree, start, end)):
            if step.node.type == kind and step.node.id not in seen:
                seen.add(step.node.id)
                yield step.node


def _is_done(text: str, start: int, old: str, produced: str) -> bool:
    """Whether the replacement wraps the old code, and this code is wrapped already."""
    at = produced.find(old)
    return at >= 0 and start >= at and text[start - at : start - at + len(produced)] == produced
