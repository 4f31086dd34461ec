"""Candidate edits other than of names: operators, numbers, negation, `await`, `return` and interpolated strings.

One table per language gives its operators and the types of its nodes. Must not know the model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import tree_sitter

from infill.code.syntax import SyntaxTree
from infill.lint.kinds import Edit
from infill.lint.symbols import SymbolTable

LARGEST = 10  # number that may be off by one
LONGEST_STRING = 300  # bytes of a string that may lack its interpolation
_FIELD = re.compile(r"(?<![{$])\{([^\W\d]\w*)((?:\.\w+|\[\w+\])*)(?:![rsa])?(?::[^{}\n]*)?\}(?!\})")
_TEMPLATE_FIELD = re.compile(r"\$\{([^\W\d]\w*)[^{}\n]*\}")
_BOUNDS = frozenset(("range", "slice", "substring", "substr"))
_SUBSCRIPTS = {"subscript": ("value", "subscript"), "subscript_expression": ("object", "index"),
               "index_expression": ("operand", "index")}  # fmt: skip


def _pairs(text: str) -> dict[str, tuple[str, ...]]:
    """`<:<=,>` -> {"<": ("<=", ">")}."""
    return {old: tuple(new.split(",")) for old, _, new in (part.partition(":") for part in text.split())}


_COMMON = _pairs(
    "<:<=,>,>= <=:<,>= >:>=,<,<= >=:>,<= ==:!= !=:== +:- -:+ *:/,+ /:* %:/ +=:-=,= -=:+=,= *=:/= /=:*= &:| |:& <<:>> "
    ">>:<<"
)


@dataclass(frozen=True)
class Grammar:
    """operators: what each may be mistaken for. negation: its text before an operand. conditions: types of nodes with a
    field `condition`; simple: operands that can be negated as they are.

    functions: types of functions, whose first word is `async` if they are; value_calls: parents of a call that may need
    an `await`. bodies: types of nodes that hold the statements of a function.
    """

    operators: dict[str, tuple[str, ...]]
    binary: frozenset[str]
    negation: str
    negated: str
    logical: frozenset[str]
    conditions: frozenset[str]
    simple: frozenset[str]
    numbers: frozenset[str]
    calls: frozenset[str] = frozenset()
    awaited: str = ""
    functions: frozenset[str] = frozenset()
    bodies: frozenset[str] = frozenset()
    strings: frozenset[str] = field(default=frozenset())


def _types(text: str) -> frozenset[str]:
    return frozenset(text.split())


_PYTHON = Grammar(
    operators=_COMMON
    | {"//": ("/", "%"), "is": ("is not",), "is not": ("is",), "in": ("not in",), "not in": ("in",)}
    | {"and": ("or",), "or": ("and",)},
    binary=_types("comparison_operator binary_operator boolean_operator augmented_assignment"),
    negation="not ",
    negated="not_operator",
    logical=_types("boolean_operator"),
    conditions=_types("if_statement elif_clause while_statement"),
    simple=_types("identifier attribute call subscript"),
    numbers=_types("integer"),
    calls=_types("call"),
    awaited="await",
    functions=_types("function_definition"),
    bodies=_types("block"),
    strings=_types("string"),
)
_JAVASCRIPT = Grammar(
    operators=_COMMON | _pairs("===:!== !==:=== &&:|| ||:&&,?? ??:||"),
    binary=_types("binary_expression augmented_assignment_expression"),
    negation="!",
    negated="unary_expression",
    logical=_types("binary_expression"),
    conditions=_types("if_statement while_statement ternary_expression"),
    simple=_types("identifier member_expression call_expression subscript_expression"),
    numbers=_types("number"),
    calls=_types("call_expression"),
    awaited="await_expression",
    functions=_types(
        "function_declaration function_expression generator_function generator_function_declaration method_definition "
        "arrow_function"
    ),
    bodies=_types("statement_block"),
    strings=_types("string"),
)
_GO = Grammar(
    operators=_COMMON | _pairs("&&:|| ||:&& :=:="),
    binary=_types("binary_expression assignment_statement"),
    negation="!",
    negated="unary_expression",
    logical=_types("binary_expression"),
    conditions=_types("if_statement"),
    simple=_types("identifier selector_expression call_expression index_expression"),
    numbers=_types("int_literal"),
)
GRAMMARS = {
    "python": _PYTHON, "javascript": _JAVASCRIPT, "typescript": _JAVASCRIPT, "tsx": _JAVASCRIPT, "go": _GO
}  # fmt: skip
_LOGICAL = frozenset(("and", "or", "&&", "||"))
_WHOLE = re.compile(r"[1-9]?\d\Z")


class Slips:
    """Edits in one file. Languages without a grammar in `GRAMMARS` have none."""

    def __init__(self, tree: SyntaxTree, symbols: SymbolTable) -> None:
        self.tree, self.symbols = tree, symbols
        self.grammar = GRAMMARS.get(tree.language.id)

    def find(self, nodes: Iterable[tree_sitter.Node]) -> Iterator[Edit]:
        grammar = self.grammar
        if grammar is None:
            return
        for node in nodes:
            kind = node.type
            if kind in grammar.binary:
                yield from self._operator(node, grammar)
            if kind in grammar.conditions:
                yield from self._negations(node, grammar)
            if kind in _SUBSCRIPTS:
                yield from self._past_the_end(node)
            if kind in grammar.numbers:
                yield from self._numbers(node, grammar)
            elif kind in grammar.calls:
                yield from self._awaits(node, grammar)
                yield from self._ends(node)
            elif kind in grammar.strings and node.end_byte - node.start_byte <= LONGEST_STRING:
                yield from self._interpolations(node)
            elif kind == "expression_statement":
                yield from self._returns(node, grammar)

    def _edit(self, node: tree_sitter.Node, replacement: str, code: str) -> Edit:
        start, end = self.tree.span(node)
        return Edit(start, end, replacement, code)

    def _before(self, node: tree_sitter.Node, word: str, code: str) -> Edit:
        """Puts `word` before the first token of `node`."""
        first = node
        while first.children:
            first = first.children[0]
        return self._edit(first, word + self.tree.part(first), code)

    def _operator(self, node: tree_sitter.Node, grammar: Grammar) -> Iterator[Edit]:
        if _is_type(node):
            return
        for child in node.children:
            if not child.is_named or child.type in ("is not", "not in"):
                for other in grammar.operators.get(child.type, ()):
                    yield self._edit(child, other, "wrong-operator")

    def _negations(self, node: tree_sitter.Node, grammar: Grammar) -> Iterator[Edit]:
        condition = node.child_by_field_name("condition")
        pending = [condition] if condition is not None else []
        while pending:
            one = pending.pop()
            if one.type == "parenthesized_expression" and one.named_child_count == 1:
                pending.append(one.named_children[0])
            elif one.type in grammar.logical and any(child.type in _LOGICAL for child in one.children):
                pending.extend(one.named_children)
            elif one.type == grammar.negated and one.children[0].type in ("not", "!"):
                operand = one.named_children[-1]
                if operand.type in grammar.simple:
                    (start, _), (inside, _) = self.tree.span(one), self.tree.span(operand)
                    first = operand
                    while first.children:
                        first = first.children[0]
                    end = inside + first.end_byte - first.start_byte
                    yield Edit(start, end, self.tree.text[inside:end], "wrong-negation")
            elif one.type in grammar.simple:
                yield self._before(one, grammar.negation, "wrong-negation")

    def _numbers(self, node: tree_sitter.Node, grammar: Grammar) -> Iterator[Edit]:
        text, parent = self.tree.part(node), node.parent
        if parent is None or not _WHOLE.match(text) or int(text) > LARGEST:
            return
        if parent.type in grammar.binary and text == "1":
            sides = parent.children
            if len(sides) == 3 and sides[2] == node and sides[1].type in ("+", "-"):
                last = _last(sides[0])
                start, end = self.tree.span(last).start, self.tree.span(node).end
                yield Edit(start, end, self.tree.part(last), "off-by-one")
        if "assign" in parent.type or parent.type in ("pair", "keyword_argument", "default_parameter", "const_spec"):
            return
        for other in (int(text) + 1, int(text) - 1):
            if other >= 0:
                yield self._edit(node, str(other), "off-by-one")

    def _ends(self, node: tree_sitter.Node) -> Iterator[Edit]:
        """The last bound of `range(…)` and the like, one more or less."""
        callee, arguments = node.child_by_field_name("function"), node.child_by_field_name("arguments")
        if callee is None or arguments is None or not arguments.named_children:
            return
        if self.tree.part(callee).rsplit(".", 1)[-1] in _BOUNDS:
            bound = arguments.named_children[min(1, len(arguments.named_children) - 1)]
            if bound.type in ("identifier", "call", "call_expression", "attribute", "member_expression"):
                last = _last(bound)
                for more in (" - 1", " + 1"):
                    yield self._edit(last, self.tree.part(last) + more, "off-by-one")

    def _past_the_end(self, node: tree_sitter.Node) -> Iterator[Edit]:
        """`values[len(values)]`, which is read and not assigned to: one less."""
        holder, index = (node.child_by_field_name(name) for name in _SUBSCRIPTS[node.type])
        target, parent = node, node.parent
        while parent is not None and parent.type.endswith("_list"):
            target, parent = parent, parent.parent
        is_assigned = parent is not None and "assign" in parent.type and parent.child_by_field_name("left") == target
        if holder is None or index is None or is_assigned:
            return
        name, length = self.tree.part(holder), "".join(self.tree.part(index).split())
        if length in (f"len({name})", f"{name}.length"):
            last = _last(index)
            yield self._edit(last, self.tree.part(last) + " - 1", "off-by-one")

    def _awaits(self, node: tree_sitter.Node, grammar: Grammar) -> Iterator[Edit]:
        parent = node.parent
        holders = ("expression_statement", "assignment", "variable_declarator", "return_statement")
        if parent is None or parent.type not in holders:
            return
        around: tree_sitter.Node | None = parent
        while around is not None and around.type not in grammar.functions:
            around = around.parent
        if around is not None and any(child.type == "async" for child in around.children[:4]):
            yield self._before(node, "await ", "missing-await")

    def _returns(self, node: tree_sitter.Node, grammar: Grammar) -> Iterator[Edit]:
        """An expression at the end of the body of a function, or of a branch in it."""
        body = node.parent
        if body is None or body.type not in grammar.bodies or not node.named_children:
            return
        statements = [child for child in body.named_children if child.type not in self.tree.language.comments]
        expression = node.named_children[0]
        if statements[-1] != node or "assignment" in expression.type or expression.type in (
            "string", "update_expression", "yield", "yield_expression", "ellipsis", "await", "await_expression",
            "concatenated_string"
        ):  # fmt: skip
            return
        around: tree_sitter.Node | None = body
        while around is not None and around.type not in grammar.functions:
            around = around.parent
        if around is None:
            return
        name = around.child_by_field_name("name")
        if name is None or self.tree.part(name) not in ("__init__", "constructor"):
            yield self._before(node, "return ", "missing-return")

    def _interpolations(self, node: tree_sitter.Node) -> Iterator[Edit]:
        text, parent = self.tree.part(node), node.parent
        if parent is None or parent.type == "expression_statement":
            return
        start, end = self.tree.span(node)
        function = self.symbols.function_at(start, end)
        visible = self.symbols.visible(function, start)
        if self.tree.language.id == "python":
            if text[:1] not in "\"'" or parent.type in ("attribute", "binary_operator", "concatenated_string"):
                return
            fields = [match[1] for match in _FIELD.finditer(text)]
            if fields and all(name in visible or (name == "self" and function >= 0) for name in fields):
                yield Edit(start, start + 1, "f" + text[0], "missing-f")
        else:
            fields = [match[1] for match in _TEMPLATE_FIELD.finditer(text)]
            if fields and "`" not in text and all(name in visible or name == "this" for name in fields):
                yield Edit(start, end, f"`{text[1:-1]}`", "missing-f")


def _is_type(node: tree_sitter.Node) -> bool:
    """Whether an operator joins types, as in `int | None`."""
    around: tree_sitter.Node | None = node
    while around is not None and around.type.startswith("binary_"):
        around = around.parent
    return around is not None and around.type in ("type", "generic_type", "type_parameter", "type_annotation")


def _last(node: tree_sitter.Node) -> tree_sitter.Node:
    """The last token of a node."""
    while node.children:
        node = node.children[-1]
    return node
