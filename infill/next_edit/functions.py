"""Functions with a name, and their parameters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import tree_sitter

from infill.code.syntax import SyntaxTree
from infill.next_edit.grammar import Grammar
from infill.next_edit.names import Step

SEPARATORS = frozenset(("keyword_separator", "positional_separator", "comment"))
_SPLATS = frozenset(
    ("list_splat_pattern", "dictionary_splat_pattern", "rest_pattern", "variadic_parameter_declaration")
)
_OPTIONAL = frozenset(("default_parameter", "typed_default_parameter", "assignment_pattern", "optional_parameter"))
_HOLDERS = frozenset(("variable_declarator",))


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
    """A function with a name, its own or that of the variable that it is the value of. owner: the class around it, if
    that is the innermost scope."""

    node: tree_sitter.Node
    name: tree_sitter.Node
    parameters: list[Parameter]
    owner: tree_sitter.Node | None

    @property
    def names(self) -> list[str]:
        return [one.name for one in self.parameters]


def function_at(steps: Sequence[Step], tree: SyntaxTree, grammar: Grammar) -> Function | None:
    """The function that has the last of these nodes in its list of parameters."""
    for index in range(len(steps) - 2, -1, -1):
        node = steps[index].node
        if node.type in grammar.functions:
            is_parameter = steps[index + 1].field == "parameters"
            return function_of(node, steps[:index], tree, grammar) if is_parameter else None
    return None


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
