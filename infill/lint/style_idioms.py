"""Idioms that a file writes one way nearly everywhere, and in a few positions another way with the same meaning.

The syntax tree alone decides: quotes, comparisons with None and with `not … in`, f-strings, empty literals. Must not
know the model.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from string import Formatter

import tree_sitter

from engine.errors import Stop, leave_if
from infill.code.syntax import SyntaxTree
from infill.lint.kinds import Edit, StyleEdit
from infill.lint.symbols import SymbolTable

MIN_SAME = {"style-quotes": 20, "style-comparison": 3, "style-format": 5, "style-literal": 4}  # uses of one variant
MAX_OTHER_SHARE = {"style-quotes": 0.03, "style-comparison": 0.25, "style-format": 0.2, "style-literal": 0.2}
MAX_OTHER = {"style-quotes": 3}  # uses of other variants
MAX_FORMATTED, MAX_VALUE = 80, 30  # characters of an f-string, and of a value in it
PROSE = 2  # spaces in a string that is a sentence: some authors quote sentences and names differently
NEARBY_LINES = 3  # above and below a string; a string there that needs its quotes justifies the same ones
_STRING = re.compile(r"""([A-Za-z]*)(["'])(.*)\2\Z""")
_CONDITIONED = frozenset("if_statement elif_clause while_statement assert_statement".split())
_LOGICAL = frozenset("boolean_operator not_operator parenthesized_expression".split())
_NEGATED = {"in": "not in", "is": "is not"}
_EMPTY = {"dict()": "{}", "list()": "[]"}
_LITERALS = {"dictionary": "{}", "list": "[]"}
_VALUE_PARENTS = frozenset(
    "assignment return_statement keyword_argument default_parameter typed_default_parameter".split()
)
_SKIPPED_STRING_PARENTS = frozenset(  # docstrings, JSX, imports
    "expression_statement jsx_attribute import_statement export_statement".split()
)
_SIMPLE = frozenset("identifier attribute subscript call integer".split())
_FIELD = re.compile(r"[^\W\d]\w*\Z")
_PERCENT = re.compile(r"%(.)")


@dataclass(frozen=True)
class _Usage:
    """Code that could be written in several variants. edit: the change to the variant `target`, if there is one."""

    code: str
    group: str
    variant: str
    edit: Edit | None = None
    target: str = ""


def unusual_idioms(tree: SyntaxTree, symbols: SymbolTable, stop: Stop | None = None) -> Iterator[StyleEdit]:
    """Edits to the variant that the file clearly prefers. Raises Cancelled once `stop` returns True."""
    reader = _Reader(tree, symbols, stop)
    usages = [usage for usage in reader if usage is not None]
    variants: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for usage in usages:
        variants[usage.code, usage.group][usage.variant] += 1
    for usage in usages:
        leave_if(stop)
        if usage.edit is None:
            continue
        counts = variants[usage.code, usage.group]
        same = counts[usage.target]
        other = counts.total() - same
        most = min(MAX_OTHER.get(usage.code, other), max(1, MAX_OTHER_SHARE[usage.code] * same))
        is_clear = same >= MIN_SAME[usage.code] and other <= most
        if is_clear and not (usage.code == "style-quotes" and reader.has_same_quotes_nearby(usage)):
            yield StyleEdit(usage.edit, same, other)


class _Reader:
    """Iterates over all code that could be written in several variants, in text order."""

    def __init__(self, tree: SyntaxTree, symbols: SymbolTable, stop: Stop | None) -> None:
        self.tree, self.symbols, self.stop = tree, symbols, stop
        self.quoting: defaultdict[str, set[int]] = defaultdict(set)  # by quote: lines of strings that contain the other
        self.readers: dict[str, Callable[[tree_sitter.Node], _Usage | None]] = {}
        if tree.language.id == "python":
            self.readers = {
                "string": self._string,
                "comparison_operator": self._comparison,
                "not_operator": self._negation,
                "binary_operator": self._percent,
                "call": self._call,
                "dictionary": self._literal,
                "list": self._literal,
            }
        elif tree.language.id in ("javascript", "typescript", "tsx"):
            self.readers = {"string": self._quotes}

    def __iter__(self) -> Iterator[_Usage | None]:
        pending = [self.tree.root] if self.readers else []
        while pending:
            leave_if(self.stop)
            node = pending.pop()
            if (reader := self.readers.get(node.type)) is not None and node.is_named:
                yield reader(node)
                if node.type == "string" and self.tree.language.id == "python":
                    yield self._quotes(node)
            pending.extend(reversed(node.children))

    def has_same_quotes_nearby(self, usage: _Usage) -> bool:
        """Whether a nearby string needs the quotes that this one has."""
        assert usage.edit is not None
        line = self.tree.text.count("\n", 0, usage.edit.start)
        return not self.quoting[usage.variant].isdisjoint(range(line - NEARBY_LINES, line + NEARBY_LINES + 1))

    def _edit(self, node: tree_sitter.Node, replacement: str, code: str) -> Edit:
        start, end = self.tree.span(node)
        return Edit(start, end, replacement, code)

    def _quotes(self, node: tree_sitter.Node) -> _Usage | None:
        """The quotes of a single-line string that contains none, outside docstrings and other strings."""
        text, parent = self.tree.part(node), node.parent
        found = _STRING.match(text)
        if found is None or parent is None:
            return None
        if '"' in found[3] or "'" in found[3]:
            self.quoting[found[2]].add(node.start_point.row)
            return None
        if parent.type in _SKIPPED_STRING_PARENTS or self._is_within_string(node):
            return None
        other = "'" if found[2] == '"' else '"'
        new = f"{found[1]}{other}{found[3]}{other}"
        edit = self._edit(node, new, "style-quotes") if found[3].count(" ") < PROSE else None
        return _Usage("style-quotes", "", found[2], edit, other)

    def _is_within_string(self, node: tree_sitter.Node) -> bool:
        above = node.parent
        while above is not None and above.type not in ("string", "template_string"):
            above = above.parent
        return above is not None

    def _string(self, node: tree_sitter.Node) -> _Usage | None:
        """An f-string with at least one field."""
        if any(child.type == "interpolation" for child in node.children):
            return _Usage("style-format", "", "f")
        return None

    def _comparison(self, node: tree_sitter.Node) -> _Usage | None:
        """`is None`, `== None` and `not in`."""
        if len(node.named_children) != 2:
            return None
        left, right = node.named_children
        operator = self.tree.part(node)[self._length(left) : -self._length(right)].strip()
        if right.type == "none" and operator in ("is", "is not", "==", "!="):
            if operator in ("is", "is not"):
                return _Usage("style-comparison", "None", "is")
            new = f"{self.tree.part(left)} {'is' if operator == '==' else 'is not'} None"
            edit = self._edit(node, new, "style-comparison") if self._is_condition(node) else None
            return _Usage("style-comparison", "None", "==", edit, "is")
        if operator == "not in" or (operator == "is not" and right.type != "none"):
            return _Usage("style-comparison", "not", "inside")
        return None

    def _length(self, node: tree_sitter.Node) -> int:
        return len(self.tree.part(node))

    def _is_condition(self, node: tree_sitter.Node) -> bool:
        """Whether the code is a condition; elsewhere libraries such as NumPy overload `==`."""
        parent: tree_sitter.Node | None = node.parent
        while parent is not None and parent.type in _LOGICAL:
            node, parent = parent, parent.parent
        if parent is None or parent.type not in _CONDITIONED:
            return False
        condition = parent.child_by_field_name("condition")
        return node == (condition if condition is not None else parent.named_children[0])

    def _negation(self, node: tree_sitter.Node) -> _Usage | None:
        """`not x in y`."""
        argument = node.child_by_field_name("argument")
        while argument is not None and argument.type == "parenthesized_expression" and argument.named_children:
            argument = argument.named_children[0]
        if argument is None or argument.type != "comparison_operator" or len(argument.named_children) != 2:
            return None
        left, right = argument.named_children
        operator = self.tree.part(argument)[self._length(left) : -self._length(right)].strip()
        if operator not in _NEGATED:
            return None
        new = f"{self.tree.part(left)} {_NEGATED[operator]} {self.tree.part(right)}"
        return _Usage("style-comparison", "not", "before", self._edit(node, new, "style-comparison"), "inside")

    def _percent(self, node: tree_sitter.Node) -> _Usage | None:
        """`"…%s…" % (a, b)`."""
        left, right = node.child_by_field_name("left"), node.child_by_field_name("right")
        if left is None or right is None or left.type != "string" or node.child_by_field_name("operator") is None:
            return None
        if self.tree.part(node.child_by_field_name("operator")) != "%":  # type: ignore[arg-type]
            return None
        values = right.named_children if right.type == "tuple" else None
        return self._formatted(node, self._from_percent(left, values))

    def _from_percent(self, left: tree_sitter.Node, values: list[tree_sitter.Node] | None) -> str | None:
        literal = self._content(left)
        if literal is None or values is None or "{" in literal or "}" in literal:
            return None
        fields = [field for field in _PERCENT.findall(literal) if field != "%"]
        if len(fields) != len(values) or any(field not in "sr" for field in fields):
            return None
        if not all(map(self._is_simple, values)):
            return None
        parts = iter([self.tree.part(value) for value in values])

        def filled(match: re.Match[str]) -> str:
            if match[1] == "%":
                return "%"
            return "{" + next(parts) + ("!r" if match[1] == "r" else "") + "}"

        return _PERCENT.sub(filled, literal)

    def _call(self, node: tree_sitter.Node) -> _Usage | None:
        """`"…{}…".format(a, b)`; and `dict()`."""
        callee, arguments = node.child_by_field_name("function"), node.child_by_field_name("arguments")
        if callee is None or arguments is None or arguments.type != "argument_list":
            return None
        if callee.type == "identifier":
            empty = f"{self.tree.part(callee)}()"
            if empty not in _EMPTY or arguments.named_children or self.tree.part(callee) in self.symbols.bound:
                return None
            taken = node.parent is not None and node.parent.type in _VALUE_PARENTS
            edit = self._edit(node, _EMPTY[empty], "style-literal") if taken else None
            return _Usage("style-literal", "", "call", edit, "literal")
        if callee.type != "attribute":
            return None
        text, method = callee.child_by_field_name("object"), callee.child_by_field_name("attribute")
        if text is None or method is None or text.type != "string" or self.tree.part(method) != "format":
            return None
        return self._formatted(node, self._from_format(text, arguments.named_children))

    def _from_format(self, text: tree_sitter.Node, arguments: list[tree_sitter.Node]) -> str | None:
        literal = self._content(text)
        if literal is None:
            return None
        given: dict[str, tree_sitter.Node] = {}
        for index, one in enumerate(arguments):
            name, value = one.child_by_field_name("name"), one.child_by_field_name("value")
            if one.type == "keyword_argument" and name is not None and value is not None:
                given[self.tree.part(name)] = value
            else:
                given[str(index)] = one
        if not all(map(self._is_simple, given.values())):
            return None
        try:
            parts = list(Formatter().parse(literal))
        except ValueError:
            return None
        new, used = "", Counter[str]()
        for before, field, spec, conversion in parts:
            new += before.replace("{", "{{").replace("}", "}}")
            if field is None:
                continue
            key = field or str(used.total())
            if key not in given or not (key.isdecimal() or _FIELD.match(key)) or "{" in (spec or ""):
                return None
            used[key] += 1
            new += "{" + self.tree.part(given[key]) + (f"!{conversion}" if conversion else "")
            new += (f":{spec}" if spec else "") + "}"
        return new if used == Counter(given.keys()) else None

    def _formatted(self, node: tree_sitter.Node, new: str | None) -> _Usage:
        """new: the content of the equivalent f-string, if there is one."""
        if new is None or len(new) > MAX_FORMATTED:
            return _Usage("style-format", "", "call")
        literal = node.child_by_field_name("left") or node.child_by_field_name("function")
        assert literal is not None
        mark = self.tree.part(literal).lstrip("(")[0]
        return _Usage("style-format", "", "call", self._edit(node, f"f{mark}{new}{mark}", "style-format"), "f")

    def _content(self, node: tree_sitter.Node) -> str | None:
        """The content of a single-line string without prefix; None for other strings."""
        found = _STRING.match(self.tree.part(node))
        if found is None or found[1] or "\n" in found[3] or "\\N" in found[3] or found[3][:1] == found[2]:
            return None
        return found[3]

    def _is_simple(self, node: tree_sitter.Node) -> bool:
        """Whether every version of Python accepts the code in an f-string."""
        text = self.tree.part(node)
        plain = len(text) <= MAX_VALUE and not any(character in text for character in "\"'\\{}#!: \n")
        return node.type in _SIMPLE and plain

    def _literal(self, node: tree_sitter.Node) -> _Usage | None:
        """`{}` and `[]`."""
        empty = _LITERALS[node.type]
        if node.named_children or self.tree.part(node) != empty or node.parent is None or node.parent.type == "pattern":
            return None
        return _Usage("style-literal", "", "literal")
