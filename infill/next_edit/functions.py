"""Functions with a name and their parameters; also classes whose fields are the parameters of their constructor."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import tree_sitter

from infill.code.syntax import SyntaxTree
from infill.next_edit.grammar import Grammar
from infill.next_edit.names import Step, steps_to

SEPARATORS = frozenset(("keyword_separator", "positional_separator", "comment"))
_SPLATS = frozenset(
    ("list_splat_pattern", "dictionary_splat_pattern", "rest_pattern", "variadic_parameter_declaration")
)
_OPTIONAL = frozenset(("default_parameter", "typed_default_parameter", "assignment_pattern", "optional_parameter"))
_HOLDERS = frozenset(("variable_declarator",))
_RECORD = re.compile(r"@(?:\w+\.)?(?:dataclass|define|frozen|mutable)\b(?!.*\bkw_only\s*=\s*True)", re.DOTALL)


@dataclass(frozen=True)
class Parameter:
    """node: the whole parameter. kind: required, optional, or a splat, which takes several arguments. by_name: whether
    calls have to name it."""

    name: str
    kind: str
    node: tree_sitter.Node
    by_name: bool = False


@dataclass(frozen=True)
class Function:
    """A function with a name, its own or that of the variable that it is the value of, or a class with fields. owner:
    the class around it, if that is the innermost scope."""

    node: tree_sitter.Node
    name: tree_sitter.Node
    parameters: list[Parameter]
    owner: tree_sitter.Node | None

    @property
    def names(self) -> list[str]:
        return [one.name for one in self.parameters]


def function_at(steps: Sequence[Step], tree: SyntaxTree, grammar: Grammar) -> Function | None:
    """The function that has the last of these nodes in its list of parameters, or the class with it as a field."""
    for index in range(len(steps) - 2, -1, -1):
        node = steps[index].node
        if node.type in grammar.functions:
            is_parameter = steps[index + 1].field == "parameters"
            return function_of(node, steps[:index], tree, grammar) if is_parameter else None
        if node.type in grammar.classes:
            return _record(node, steps[:index], tree) if steps[index + 1].field == "body" else None
    return None


def record_at(tree: SyntaxTree, start: int) -> Function | None:
    """The class with fields whose name begins at `start`."""
    steps = steps_to(tree, start, start + 1)
    is_name = len(steps) > 1 and steps[-1].field == "name" and steps[-2].node.type == "class_definition"
    return _record(steps[-2].node, steps[:-2], tree) if is_name else None


def _record(node: tree_sitter.Node, around: Sequence[Step], tree: SyntaxTree) -> Function | None:
    """A Python class whose constructor is made from all its fields, in their order: a data class or a named tuple."""
    name, body, bases = (node.child_by_field_name(field) for field in ("name", "body", "superclasses"))
    if name is None or body is None or tree.language.id != "python":
        return None
    start = tree.span(around[-1].node if around and around[-1].node.type == "decorated_definition" else node).start
    head = tree.text[start : tree.span(node).start]
    is_tuple = bases is not None and tree.part(bases) in ("(NamedTuple)", "(typing.NamedTuple)")
    if not (is_tuple or bases is None and _RECORD.search(head)):
        return None
    fields = list(_fields(body, tree))
    return None if any("KW_ONLY" in tree.part(one.node) for one in fields) else Function(node, name, fields, None)


def _fields(body: tree_sitter.Node, tree: SyntaxTree) -> Iterator[Parameter]:
    for statement in body.named_children:
        node = statement.named_children[0] if statement.type == "expression_statement" else statement
        name, kind = node.child_by_field_name("left"), node.child_by_field_name("type")
        value = node.child_by_field_name("right")
        if node.type != "assignment" or name is None or kind is None or "ClassVar" in tree.part(kind):
            continue
        if value is None or not re.search(r"\binit\s*=\s*False\b", tree.part(value)):
            yield Parameter(tree.part(name), "optional" if value is not None else "required", node)


def function_of(node: tree_sitter.Node, around: Sequence[Step], tree: SyntaxTree, grammar: Grammar) -> Function | None:
    """The function that a definition, or a variable with a function as its value, defines; None if it has no name.
    around: the nodes around it."""
    name, listed = node.child_by_field_name("name"), node.child_by_field_name("parameters")
    if node.type not in grammar.definitions:
        holder = around[-1].node if around else None
        name = holder.child_by_field_name("name") if holder is not None and holder.type in _HOLDERS else None
    if name is None or name.child_count or listed is None:
        return None
    scopes = [step.node for step in around if step.node.type in grammar.functions | grammar.classes]
    owner = scopes[-1] if scopes and scopes[-1].type in grammar.classes else None
    return Function(node, name, list(_parameters(listed, tree)), owner)


def _parameters(listed: tree_sitter.Node, tree: SyntaxTree) -> Iterator[Parameter]:
    by_name = False
    for node in listed.named_children:
        by_name = by_name or node.type == "keyword_separator"
        if node.type in SEPARATORS:
            continue
        named = (
            node.child_by_field_name("name") or node.child_by_field_name("pattern") or node.child_by_field_name("left")
        )
        names = node.children_by_field_name("name") or [named or (node.named_children or [node])[0]]
        inner = named.type if named is not None else names[0].type
        splat = node.type in _SPLATS or inner in _SPLATS
        has_default = node.type in _OPTIONAL or node.child_by_field_name("value") is not None
        kind = "splat" if splat else "optional" if has_default else "required"
        for name in names:
            yield Parameter(tree.part(name).lstrip("*."), kind, node, by_name)
        by_name = by_name or splat and tree.language.id == "python"
