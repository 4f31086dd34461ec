"""A name changed where it is declared: its uses in the file follow."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence

import tree_sitter

from infill.next_edit.change import Change
from infill.next_edit.edits import Place, Proposal, split
from infill.next_edit.names import NameTable, Occurrence, ScopeKey, Step, class_around, inherits, key_of

_NAME = re.compile(r"[^\W\d][\w$]*\Z")
RANK = 0.95
_IMPORTS = frozenset(("import_statement", "import_from_statement", "import_clause", "named_imports"))
_SPECIAL = re.compile(r"__\w+__\Z")  # the name has a meaning of its own
LEAST_SHARED = 3  # letters that names for the same thing have in common in one piece
SHARED_PART = 0.4  # of the shorter name
_MEMBERS = frozenset(
    "method_definition method_declaration field_declaration property_signature method_signature".split()
)
_KEYS = frozenset((("pair", "key"), ("pair_pattern", "key")))
_SHORTHANDS = frozenset(("shorthand_property_identifier", "shorthand_property_identifier_pattern"))
_LOOPS = frozenset(("for_statement", "for_in_clause", "for_in_statement", "range_clause"))
_TYPED = _LOOPS | frozenset(
    "assignment variable_declarator short_var_declaration typed_parameter typed_default_parameter default_parameter "
    "required_parameter optional_parameter parameter_declaration".split()
)


def rename(change: Change) -> Iterator[Proposal]:
    whole = whole_name(change)
    if whole is None:
        return
    start, old, new = whole
    if old == new or not _NAME.match(old) or not _NAME.match(new) or {old, new} & change.grammar.keywords:
        return
    if _SPECIAL.match(old) or _SPECIAL.match(new) or {old, new} & change.grammar.receivers:
        return
    if _is_rewritten(change) and not are_alike(old, new):
        return
    now = NameTable(change.after, new, change.stop).at(start)
    if now is None or now.role in ("use", "label") or _has_new_value(change, now):
        return
    table = NameTable(change.before, old, change.stop)
    declared = table.at(start)
    if declared is None or not table.is_complete:
        return
    if declared.role == "binding":
        found = _variable_uses(change, table, declared, new)
    else:
        found = _member_uses(change, table, declared, new)
    places = sorted({place for place in found if place is not None})
    if places:
        what = f"{len(places)} uses" if len(places) > 1 else "1 use"
        yield Proposal("rename", tuple(places), f"Rename {what} of `{old}` to `{new}`.", RANK, change.edit.start)


def whole_name(change: Change) -> tuple[int, str, str] | None:
    """Start, old and new text of the one identifier that the edit changed."""
    edit, text = change.edit, change.after.text
    if not re.fullmatch(r"[\w$]*", edit.old) or not re.fullmatch(r"[\w$]*", edit.new):
        return None
    head = re.search(r"[\w$]*\Z", text[max(0, edit.start - 200) : edit.start])
    tail = re.match(r"[\w$]*", text[edit.end : edit.end + 200])
    assert head is not None and tail is not None
    return edit.start - len(head[0]), head[0] + edit.old + tail[0], head[0] + edit.new + tail[0]


def _is_rewritten(change: Change) -> bool:
    """Whether the edit changes other lines too, as one that puts new code in the place of old code does."""
    if change.line_edit is None:
        return False
    text, (start, end) = change.after.text, (change.edit.start, change.edit.end)
    others = (one for one in split(change.line_edit) if (one.old + one.new).strip())
    return any(
        "\n" in one.old or "\n" in one.new or "\n" in text[min(end, one.end) : max(start, one.start)] for one in others
    )


def are_alike(old: str, new: str) -> bool:
    """Whether two names look like names for the same thing."""
    matcher = difflib.SequenceMatcher(None, old.lower(), new.lower(), False)
    shared = matcher.find_longest_match().size
    return shared >= LEAST_SHARED and shared > SHARED_PART * min(len(old), len(new))


def _has_new_value(change: Change, now: Occurrence) -> bool:
    """Whether the type or the value of a variable changed too, so that it is another variable."""
    around = [step.node for step in now.steps[-4:-1] if step.node.type in _TYPED]
    if not around or change.line_edit is None:
        return False
    start, end = change.after.span(around[-1])
    line_end = change.after.text.find("\n", now.end)
    if around[-1].type in _LOOPS and line_end >= 0:
        end = min(end, line_end)
    return any(start <= one.start < end and one.start != change.edit.start for one in split(change.line_edit))


def _variable_uses(change: Change, table: NameTable, declared: Occurrence, new: str) -> Iterator[Place | None]:
    scope = declared.scope
    assert scope is not None
    uses = table.bound_in(scope)
    if not _is_first(uses, declared) or _is_taken(change, declared, new) or _is_kept(change, declared, table.name):
        return
    if any(step.node.type in _IMPORTS for step in declared.steps) and not _is_renamed_import(change, table.name, new):
        return
    for one in uses:
        if one.start != declared.start:
            yield change.place(one.start, one.end, _replacement(one, table.name, new))
    yield from _keywords(change, table, declared, new)
    yield from _exports(change, table, declared, new)
    if scope[2] in change.grammar.classes and change.after.language.id == "python":
        yield from _member_uses(change, table, declared, new)


def _is_first(uses: Sequence[Occurrence], declared: Occurrence) -> bool:
    """Whether no other binding of the variable comes before. A later one is often a new value, not a new name."""
    return all(one.start >= declared.start for one in uses if one.role == "binding")


def _is_taken(change: Change, declared: Occurrence, new: str) -> bool:
    """Whether the scope bound the new name before the edit."""
    table = NameTable(change.before, new, change.stop)
    return not table.is_complete or declared.scope in table.scopes


def _is_kept(change: Change, declared: Occurrence, old: str) -> bool:
    """Whether an import or a definition still binds the old name in that scope, or the edit itself does."""
    assert declared.scope is not None
    start, _, kind = declared.scope
    lines = change.line_edit or change.edit
    table = NameTable(change.after, old, change.stop)
    for one in table.occurrences:
        if one.scope is not None and (one.scope[0], one.scope[2]) == (start, kind):
            is_import = any(step.node.type in _IMPORTS for step in one.steps)
            is_defined = one.parent.type in change.grammar.definitions | change.grammar.classes
            if is_import or is_defined or lines.start <= one.start < lines.end:
                return True
    return False


def _is_renamed_import(change: Change, old: str, new: str) -> bool:
    """Whether an import has another name for the same thing: nothing else changed, and the names are alike."""
    parts = split(change.line_edit) if change.line_edit is not None else [change.edit]
    return len(parts) == 1 and are_alike(old, new)


def _replacement(one: Occurrence, old: str, new: str) -> str:
    """`{a}` is short for `{a: a}`, whose key keeps its name."""
    if one.node.type == "shorthand_property_identifier":
        return f"{old}: {new}"
    return new


def _keywords(change: Change, table: NameTable, declared: Occurrence, new: str) -> Iterator[Place | None]:
    """Keyword arguments of calls, for a parameter, and for a field with a type, as data classes have them."""
    function, owner = parameter_owner(declared.steps, change), class_around(declared.steps, change.grammar)
    if function is None and declared.parent.child_by_field_name("type") is not None:
        function = owner if owner is not None and key_of(owner) == declared.scope else None
    if function is None or change.after.language.id != "python":
        return
    named = function.child_by_field_name("name")
    if named is None:
        return
    callee = change.before.part(named)
    if callee in change.grammar.constructors and owner is not None:
        class_name = owner.child_by_field_name("name")
        callee = change.before.part(class_name) if class_name is not None else callee
    for one in table.occurrences:
        if one.role == "label" and one.parent.type == "keyword_argument" and len(one.steps) > 3:
            called = one.steps[-4].node.child_by_field_name("function")
            if called is not None and change.before.part(called).rsplit(".", 1)[-1] == callee:
                yield change.place(one.start, one.end, new)


def parameter_owner(steps: Sequence[Step], change: Change) -> tree_sitter.Node | None:
    """The function that has the last of these nodes among its parameters."""
    for index in range(len(steps) - 2, -1, -1):
        if steps[index].node.type in change.grammar.functions:
            return steps[index].node if steps[index + 1].field == "parameters" else None
    return None


def _exports(change: Change, table: NameTable, declared: Occurrence, new: str) -> Iterator[Place | None]:
    """The name in `__all__` of a Python file."""
    if declared.scope != key_of(change.before.root) or change.before.language.id != "python":
        return
    listed = re.search(r"^__all__\s*(?::[^=\n]*)?\+?=\s*[\[(]([^\])]*)", change.before.text, re.MULTILINE)
    if listed is not None:
        match = re.search(rf"([\"']){re.escape(table.name)}\1", listed[1])
        if match is not None:
            start = listed.start(1) + match.start() + 1
            yield change.place(start, start + len(table.name), new)


def _member_uses(change: Change, table: NameTable, declared: Occurrence, new: str) -> Iterator[Place | None]:
    """The uses of a method or field of the class, and of any object if only this class has such a member."""
    grammar = change.grammar
    declarations = [one for one in table.occurrences if _declares_member(one, table)]
    if declared not in declarations:
        return
    owner = class_around(declared.steps, change.grammar)
    own = key_of(owner) if owner is not None else None
    others = [one for one in declarations if _key_around(one, change) != own or own is None]
    is_only = (not others or own is None and len(declarations) == 1) and table.name not in grammar.known
    assigned = _is_receiver_member(declared, table)
    if assigned and any(one.start < declared.start for one in declarations if _key_around(one, change) == own):
        return  # a later assignment
    taken = NameTable(change.before, new, change.stop)
    if any(_key_around(one, change) == own and _declares_member(one, taken) for one in taken.occurrences):
        return
    for one in table.occurrences:
        if one.start == declared.start:
            continue
        in_class = own is not None and _key_around(one, change) == own
        if one.role == "member":
            if _object_of(one, table) in grammar.receivers:
                is_due = in_class or inherits(one.steps, owner, change.before)
            else:
                is_due = is_only
            if is_due:
                yield change.place(one.start, one.end, new)
        elif in_class and one in declarations and one.role != "binding":
            yield change.place(one.start, one.end, new)
        elif own is None and is_only and (one.role == "label" or (one.parent.type, one.steps[-1].field) in _KEYS):
            yield change.place(one.start, one.end, new)
        elif own is None and is_only and one.node.type in _SHORTHANDS:
            yield change.place(one.start, one.end, f"{new}: {table.name}")


def _declares_member(one: Occurrence, table: NameTable) -> bool:
    parent, field, grammar = one.parent, one.steps[-1].field, table.grammar
    if parent.type in _MEMBERS and field == "name":
        return True
    if parent.type in grammar.field_types and field in ("property", "name"):
        return True
    if one.role == "binding" and one.scope is not None and one.scope[2] in grammar.hidden:
        return True
    return _is_receiver_member(one, table)


def _is_receiver_member(one: Occurrence, table: NameTable) -> bool:
    """Whether this assigns to a member of `self` or `this`."""
    if one.role != "member" or len(one.steps) < 3 or _object_of(one, table) not in table.grammar.receivers:
        return False
    holder = one.steps[-3].node
    return holder.type in ("assignment", "assignment_expression") and one.steps[-2].field == "left"


def _object_of(one: Occurrence, table: NameTable) -> str:
    """The object whose member this is, if it is short."""
    for name in table.grammar.objects:
        found = one.parent.child_by_field_name(name)
        if found is not None:
            return table.tree.part(found) if found.end_byte - found.start_byte < 100 else ""
    return ""


def _key_around(one: Occurrence, change: Change) -> ScopeKey | None:
    found = class_around(one.steps, change.grammar)
    return key_of(found) if found is not None else None
