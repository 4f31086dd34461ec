"""The symbol table of a file: every name with its role, every function with the variables it binds.

One pass over a syntax tree of any language, by types of nodes and names of fields. For a language that the tables below
do not cover, fewer names are recognized as variables. Must not know the model, nor kinds of findings.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Literal

import tree_sitter

from engine.errors import Stop, pacer
from infill.code.syntax import SyntaxTree

Role = Literal["use", "call", "bound", "written", "attribute", "method", "keyword", "other"]

NAMES = frozenset(
    "identifier property_identifier field_identifier shorthand_property_identifier "
    "shorthand_property_identifier_pattern".split()
)
_BINDS = frozenset(
    (pair.split(".")[0], pair.split(".")[1] or None)
    for pair in (
        # Python
        "assignment.left for_statement.left for_in_clause.left named_expression.name default_parameter.name "
        "typed_default_parameter.name as_pattern.alias parameters. lambda_parameters. typed_parameter. "
        # JavaScript, TypeScript
        "variable_declarator.name required_parameter.pattern optional_parameter.pattern formal_parameters. "
        "arrow_function.parameter for_in_statement.left catch_clause.parameter pair_pattern.value "
        # Go
        "short_var_declaration.left parameter_declaration.name variadic_parameter_declaration.name var_spec.name "
        "const_spec.name range_clause.left "
        # Rust
        "let_declaration.pattern parameter.pattern for_expression.pattern closure_parameters. let_condition.pattern "
        # Java
        "formal_parameter.name enhanced_for_statement.name catch_formal_parameter.name inferred_parameters. "
        "resource.name "
        # C, C++
        "parameter_declaration.declarator init_declarator.declarator declaration.declarator for_range_loop.declarator "
        "optional_parameter_declaration.declarator"
    ).split()
)
_WRITES = frozenset(
    (("assignment_expression", "left"), ("assignment_statement", "left"), ("augmented_assignment", "left"))
)
_ASSIGNMENTS = frozenset(("assignment", "assignment_expression", "assignment_statement"))
_ASSIGNS_AT_END = frozenset(
    "assignment short_var_declaration variable_declarator let_declaration init_declarator named_expression".split()
)
_NOT_BOUND_FIELDS = frozenset("value type default_value right body condition size arguments return_type".split())
_NOT_BOUND_TYPES = frozenset(
    "attribute subscript call member_expression subscript_expression selector_expression index_expression "
    "field_expression call_expression function_declarator type".split()
)
_MEMBERS = frozenset(
    (
        ("attribute", "attribute"),
        ("member_expression", "property"),
        ("selector_expression", "field"),
        ("field_expression", "field"),
        ("field_access", "field"),
    )
)
_CALLS = frozenset((("call", "function"), ("call_expression", "function"), ("method_invocation", "name")))
_NAMED_DEFINITIONS = frozenset(
    "function_definition class_definition function_declaration class_declaration method_definition method_declaration "
    "generator_function_declaration function_item struct_item enum_item constructor_declaration interface_declaration "
    "enum_declaration type_spec keyword_argument pair labeled_statement".split()
)
_IMPORTED_AS = ("aliased_import", "alias")
_OTHER_PARENTS = frozenset(
    "type dotted_name decorator import_specifier namespace_import global_statement nonlocal_statement "
    "macro_invocation scoped_identifier goto_statement".split()
)
ARGUMENT_LISTS = frozenset(("argument_list", "arguments"))
PARAMETERS = frozenset(
    ("parameters", "lambda_parameters", "formal_parameters", "inferred_parameters", "closure_parameters")
)
MAX_KEY_BYTES = 200  # in a chain of calls, the object of each call contains all that precede it
_OBJECTS = ("object", "operand", "argument", "value")


@dataclass(frozen=True)
class Name:
    """A name at [start, end) characters. function: index of the innermost function around it, -1 for none.

    owner: the text of the object of an attribute or method; empty for other names.
    """

    start: int
    end: int
    text: str
    role: Role
    function: int
    owner: str = ""


@dataclass
class Function:
    """A function at [start, end) characters. outer: index of the enclosing function, -1 for none.

    bound: by variable, where it gets its first value. reads: how often each is used.
    """

    start: int
    end: int
    outer: int
    bound: dict[str, int] = field(default_factory=dict)
    reads: Counter[str] = field(default_factory=Counter)
    parameters: set[str] = field(default_factory=set)


class SymbolTable:
    """counts: how often each name occurs, in any role. members: attributes and methods by owner.

    bound: names that are bound, defined or imported, and members that are assigned to. shared: those of them that the
    whole file sees. declared: those that bodies of classes bind or define. is_open: an import brings in names that the
    file does not list. stop: polled; once it returns True, Cancelled is raised.
    """

    def __init__(self, tree: SyntaxTree, stop: Stop | None = None) -> None:
        self.tree = tree
        self._pace = pacer(stop)
        self.names: list[Name] = []
        self.functions: list[Function] = []
        self.counts: Counter[str] = Counter()
        self.members: defaultdict[str, set[str]] = defaultdict(set)
        self.bound: set[str] = set()
        self.declared: set[str] = set()
        self.shared: set[str] = set()
        self.is_open = False
        self._visit(tree.root.walk())
        self._count_reads()

    def function_at(self, start: int, end: int) -> int:
        """Index of the innermost function that contains [start, end), -1 for none."""
        found = -1
        for index, function in enumerate(self.functions):
            if function.start <= start and end <= function.end:
                found = index
        return found

    def visible(self, function: int, before: int) -> dict[str, int]:
        """The variables that a function and its enclosing functions bind before the offset `before`, and where."""
        found: dict[str, int] = {}
        while function >= 0:
            for name, at in self.functions[function].bound.items():
                if at < before:
                    found.setdefault(name, at)
            function = self.functions[function].outer
        return found

    def _visit(self, cursor: tree_sitter.TreeCursor) -> None:
        language, tree = self.tree.language, self.tree
        # for each open node: the node, the function around it, whether it binds names
        path: list[tuple[tree_sitter.Node, int, bool]] = []
        while True:
            self._pace()
            node, name = cursor.node, cursor.field_name
            assert node is not None
            parent, function, binds = path[-1] if path else (None, -1, False)
            kind = node.type
            if parent is not None:
                edge = (parent.type, name)
                binds = (binds or edge in _BINDS) and not (name in _NOT_BOUND_FIELDS and edge not in _BINDS)
                binds = binds and kind not in _NOT_BOUND_TYPES
            if kind in NAMES:
                self._name(node, name, path, function, binds)
            if language.scopes.get(kind) in ("function", "method") and node.is_named:
                start, end = tree.span(node)
                self.functions.append(Function(start, end, function))
                function = len(self.functions) - 1
            elif kind == "type_identifier" and name == "name" and function < 0:  # a class of TypeScript
                self.bound.add(tree.part(node))
                self.shared.add(tree.part(node))
            elif kind == "wildcard_import":
                self.is_open = True
            if cursor.goto_first_child():
                path.append((node, function, binds))
                continue
            while not cursor.goto_next_sibling():
                if not cursor.goto_parent():
                    return
                path.pop()
            if not path:
                return

    def _name(
        self,
        node: tree_sitter.Node,
        field_name: str | None,
        path: list[tuple[tree_sitter.Node, int, bool]],
        function: int,
        binds: bool,
    ) -> None:
        text = self.tree.part(node)
        parent, grandparent = path[-1][0], path[-2][0] if len(path) > 1 else None
        owner, role = "", _role(node, field_name, parent, binds)
        self.counts[text] += 1
        if role == "attribute":
            objects = [parent.child_by_field_name(one) for one in _OBJECTS]
            owner = next((short_part(self.tree, one) for one in objects if one is not None), "")
            callee = grandparent and (grandparent.type, "function") in _CALLS
            if callee and grandparent is not None and grandparent.child_by_field_name("function") == parent:
                role = "method"
            if grandparent is not None and grandparent.type in _ASSIGNMENTS:
                if grandparent.child_by_field_name("left") == parent:
                    self.bound.add(text)
            self.members[owner].add(text)
        elif role == "method":
            holder = parent.child_by_field_name("object")
            owner = short_part(self.tree, holder) if holder is not None else ""
            self.members[owner].add(text)
        if role in ("bound", "other"):
            if self._in_class(path):
                self.declared.add(text)
            elif role == "other" or function < 0:
                self.shared.add(text)
        start, end = self.tree.span(node)
        if role == "bound":
            self.bound.add(text)
            if function >= 0:
                self.functions[function].bound.setdefault(text, self._bound_from(node, path))
                if any(outer.type in PARAMETERS for outer, _, _ in path[-4:]):
                    self.functions[function].parameters.add(text)
        elif role == "other":
            self.bound.add(text)
        self.names.append(Name(start, end, text, role, function, owner))

    def _in_class(self, path: list[tuple[tree_sitter.Node, int, bool]]) -> bool:
        """Whether a class is the innermost scope around a name, or around the scope that it names."""
        scopes = self.tree.language.scopes
        around = path[:-1] if path[-1][0].type in scopes else path
        kinds = [kind for node, _, _ in around if (kind := scopes.get(node.type)) is not None]
        return bool(kinds) and kinds[-1] == "class"

    def _bound_from(self, node: tree_sitter.Node, path: list[tuple[tree_sitter.Node, int, bool]]) -> int:
        """Where the name gets its value: an assignment gives it at its end."""
        for outer, _, binds in reversed(path):
            if outer.type in _ASSIGNS_AT_END:
                return self.tree.span(outer).end
            if not binds:
                break
        return self.tree.span(node).start

    def _count_reads(self) -> None:
        """A read counts for the innermost function around it that binds the name, if any does."""
        for name in self.names:
            self._pace()
            at = name.function if name.role in ("use", "call") else -1
            while at >= 0 and name.text not in self.functions[at].bound:
                at = self.functions[at].outer
            if at >= 0:
                self.functions[at].reads[name.text] += 1


def called_name(tree: SyntaxTree, arguments: tree_sitter.Node) -> str:
    """The last name of the function that a list of arguments is passed to: `max` for `Math.max(…)`; "" for none."""
    callee = arguments.parent.child_by_field_name("function") if arguments.parent is not None else None
    return tree.part(callee).rsplit(".", 1)[-1] if callee is not None else ""


def short_part(tree: SyntaxTree, node: tree_sitter.Node) -> str:
    """The text of a node, for use as a key; empty if it is too long, since such code repeats nowhere."""
    return tree.part(node) if node.end_byte - node.start_byte <= MAX_KEY_BYTES else ""


def _role(node: tree_sitter.Node, field_name: str | None, parent: tree_sitter.Node, binds: bool) -> Role:
    edge = (parent.type, field_name)
    if edge in _MEMBERS:
        return "attribute"
    if edge == ("method_invocation", "name") and parent.child_by_field_name("object") is not None:
        return "method"
    if binds:
        return "bound"
    if edge in _CALLS:
        return "call"
    if parent.type == "keyword_argument" and field_name == "name":
        return "keyword"
    named = parent.type in _NAMED_DEFINITIONS and field_name in ("name", "key")
    if named or edge == _IMPORTED_AS or parent.type in _OTHER_PARENTS:
        return "other"
    if edge in _WRITES:
        return "written"
    return "use" if node.type in ("identifier", "shorthand_property_identifier") else "other"
