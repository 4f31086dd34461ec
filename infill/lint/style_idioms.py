"""What a file writes in one way nearly everywhere, and here in another that means the same.

Every way is decided by the tree alone: quotes, comparisons with None and by `not … in`, f-strings, empty literals. Must
not know the model.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from string import Formatter

import tree_sitter

from infill.code.syntax import SyntaxTree
from infill.lint.kinds import Edit, StyleEdit
from infill.lint.symbols import Survey

LEAST = {"style-quotes": 20, "style-comparison": 3, "style-format": 5, "style-literal": 4}  # the file's way
MOST_OTHERS = {"style-quotes": 0.03, "style-comparison": 0.25, "style-format": 0.2, "style-literal": 0.2}
MOST = {"style-quotes": 3}  # otherwise, at all
LONGEST, LONGEST_VALUE = 80, 30  # characters of a text that is put together, and of what is put in
PROSE = 2  # blanks in a string that is a sentence: some write those in other quotes than names
NEAR = 3  # lines above and below in which a string that needs its quotes speaks for the same ones
_STRING = re.compile(r"""([A-Za-z]*)(["'])(.*)\2\Z""")
_CONDITIONED = frozenset("if_statement elif_clause while_statement assert_statement".split())
_LOGIC = frozenset("boolean_operator not_operator parenthesized_expression".split())
_SWAPPED = {"in": "not in", "is": "is not"}
_EMPTY = {"dict()": "{}", "list()": "[]"}
_WRITTEN = {"dictionary": "{}", "list": "[]"}
_TAKES_VALUE = frozenset(
    "assignment return_statement keyword_argument default_parameter typed_default_parameter".split()
)
_OTHER_STRINGS = frozenset(  # docstrings; what has quotes of its own by custom; what compilers write
    "expression_statement jsx_attribute import_statement export_statement".split()
)
_SIMPLE = frozenset("identifier attribute subscript call integer".split())
_FIELD = re.compile(r"[^\W\d]\w*\Z")
_PERCENT = re.compile(r"%(.)")


@dataclass(frozen=True)
class _Case:
    """Something that can be written in several ways. way: how it is; edit: to `wanted`, where that can be told."""

    code: str
    group: str
    way: str
    edit: Edit | None = None
    wanted: str = ""


def unusual_idioms(tree: SyntaxTree, survey: Survey) -> Iterator[StyleEdit]:
    """Where the file has one way clearly: what is written in another."""
    reader = _Cases(tree, survey)
    cases = [case for case in reader if case is not None]
    ways: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for case in cases:
        ways[case.code, case.group][case.way] += 1
    for case in cases:
        if case.edit is not None:
            counts = ways[case.code, case.group]
            same = counts[case.wanted]
            other = counts.total() - same
            most = min(MOST.get(case.code, other), max(1, MOST_OTHERS[case.code] * same))
            clear = same >= LEAST[case.code] and other <= most
            if clear and not (case.code == "style-quotes" and reader.is_near_such(case)):
                yield StyleEdit(case.edit, same, other)


class _Cases:
    """Iterates over everything that can be written in several ways, in text order."""

    def __init__(self, tree: SyntaxTree, survey: Survey) -> None:
        self.tree, self.survey = tree, survey
        self.needing: defaultdict[str, set[int]] = defaultdict(set)  # by quote the lines of strings that hold the other
        self.readers: dict[str, Callable[[tree_sitter.Node], _Case | None]] = {}
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

    def __iter__(self) -> Iterator[_Case | None]:
        pending = [self.tree.root] if self.readers else []
        while pending:
            node = pending.pop()
            if (reader := self.readers.get(node.type)) is not None and node.is_named:
                yield reader(node)
                if node.type == "string" and self.tree.language.id == "python":
                    yield self._quotes(node)
            pending.extend(reversed(node.children))

    def is_near_such(self, case: _Case) -> bool:
        """Whether a string that needs the quotes of this one stands near."""
        assert case.edit is not None
        line = self.tree.text.count("\n", 0, case.edit.start)
        return not self.needing[case.way].isdisjoint(range(line - NEAR, line + NEAR + 1))

    def _edit(self, node: tree_sitter.Node, replacement: str, code: str) -> Edit:
        start, end = self.tree.span(node)
        return Edit(start, end, replacement, code)

    def _quotes(self, node: tree_sitter.Node) -> _Case | None:
        """Of a string in one line that holds neither quote; none of a docstring, nor within another string."""
        text, parent = self.tree.part(node), node.parent
        found = _STRING.match(text)
        if found is None or parent is None:
            return None
        if '"' in found[3] or "'" in found[3]:
            self.needing[found[2]].add(node.start_point.row)
            return None
        if parent.type in _OTHER_STRINGS or self._is_within_string(node):
            return None
        other = "'" if found[2] == '"' else '"'
        new = f"{found[1]}{other}{found[3]}{other}"
        edit = self._edit(node, new, "style-quotes") if found[3].count(" ") < PROSE else None
        return _Case("style-quotes", "", found[2], edit, other)

    def _is_within_string(self, node: tree_sitter.Node) -> bool:
        above = node.parent
        while above is not None and above.type not in ("string", "template_string"):
            above = above.parent
        return above is not None

    def _string(self, node: tree_sitter.Node) -> _Case | None:
        """An f-string that puts something in."""
        if any(child.type == "interpolation" for child in node.children):
            return _Case("style-format", "", "f")
        return None

    def _comparison(self, node: tree_sitter.Node) -> _Case | None:
        """With None, by `is` or by `==`; and `not in`."""
        if len(node.named_children) != 2:
            return None
        left, right = node.named_children
        sign = self.tree.part(node)[self._length(left) : -self._length(right)].strip()
        if right.type == "none" and sign in ("is", "is not", "==", "!="):
            if sign in ("is", "is not"):
                return _Case("style-comparison", "None", "is")
            new = f"{self.tree.part(left)} {'is' if sign == '==' else 'is not'} None"
            edit = self._edit(node, new, "style-comparison") if self._is_condition(node) else None
            return _Case("style-comparison", "None", "==", edit, "is")
        if sign == "not in" or (sign == "is not" and right.type != "none"):
            return _Case("style-comparison", "not", "inside")
        return None

    def _length(self, node: tree_sitter.Node) -> int:
        return len(self.tree.part(node))

    def _is_condition(self, node: tree_sitter.Node) -> bool:
        """Whether only its truth counts: elsewhere libraries give `==` a meaning of their own."""
        parent: tree_sitter.Node | None = node.parent
        while parent is not None and parent.type in _LOGIC:
            node, parent = parent, parent.parent
        if parent is None or parent.type not in _CONDITIONED:
            return False
        condition = parent.child_by_field_name("condition")
        return node == (condition if condition is not None else parent.named_children[0])

    def _negation(self, node: tree_sitter.Node) -> _Case | None:
        """`not x in y`."""
        argument = node.child_by_field_name("argument")
        while argument is not None and argument.type == "parenthesized_expression" and argument.named_children:
            argument = argument.named_children[0]
        if argument is None or argument.type != "comparison_operator" or len(argument.named_children) != 2:
            return None
        left, right = argument.named_children
        sign = self.tree.part(argument)[self._length(left) : -self._length(right)].strip()
        if sign not in _SWAPPED:
            return None
        new = f"{self.tree.part(left)} {_SWAPPED[sign]} {self.tree.part(right)}"
        return _Case("style-comparison", "not", "before", self._edit(node, new, "style-comparison"), "inside")

    def _percent(self, node: tree_sitter.Node) -> _Case | None:
        """`"…%s…" % (a, b)`."""
        left, right = node.child_by_field_name("left"), node.child_by_field_name("right")
        if left is None or right is None or left.type != "string" or node.child_by_field_name("operator") is None:
            return None
        if self.tree.part(node.child_by_field_name("operator")) != "%":  # type: ignore[arg-type]
            return None
        values = right.named_children if right.type == "tuple" else None
        return self._formatted(node, self._from_percent(left, values))

    def _from_percent(self, left: tree_sitter.Node, values: list[tree_sitter.Node] | None) -> str | None:
        literal = self._plain(left)
        if literal is None or values is None or "{" in literal or "}" in literal:
            return None
        signs = [sign for sign in _PERCENT.findall(literal) if sign != "%"]
        if len(signs) != len(values) or any(sign not in "sr" for sign in signs) or not all(map(self._fits, values)):
            return None
        written = iter([self.tree.part(value) for value in values])

        def filled(match: re.Match[str]) -> str:
            if match[1] == "%":
                return "%"
            return "{" + next(written) + ("!r" if match[1] == "r" else "") + "}"

        return _PERCENT.sub(filled, literal)

    def _call(self, node: tree_sitter.Node) -> _Case | None:
        """`"…{}…".format(a, b)`; and `dict()`."""
        callee, arguments = node.child_by_field_name("function"), node.child_by_field_name("arguments")
        if callee is None or arguments is None or arguments.type != "argument_list":
            return None
        if callee.type == "identifier":
            empty = f"{self.tree.part(callee)}()"
            if empty not in _EMPTY or arguments.named_children or self.tree.part(callee) in self.survey.bound:
                return None
            taken = node.parent is not None and node.parent.type in _TAKES_VALUE
            edit = self._edit(node, _EMPTY[empty], "style-literal") if taken else None
            return _Case("style-literal", "", "call", edit, "sign")
        if callee.type != "attribute":
            return None
        text, asked = callee.child_by_field_name("object"), callee.child_by_field_name("attribute")
        if text is None or asked is None or text.type != "string" or self.tree.part(asked) != "format":
            return None
        return self._formatted(node, self._from_format(text, arguments.named_children))

    def _from_format(self, text: tree_sitter.Node, arguments: list[tree_sitter.Node]) -> str | None:
        literal = self._plain(text)
        if literal is None:
            return None
        given: dict[str, tree_sitter.Node] = {}
        for index, one in enumerate(arguments):
            name, value = one.child_by_field_name("name"), one.child_by_field_name("value")
            if one.type == "keyword_argument" and name is not None and value is not None:
                given[self.tree.part(name)] = value
            else:
                given[str(index)] = one
        if not all(map(self._fits, given.values())):
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

    def _formatted(self, node: tree_sitter.Node, new: str | None) -> _Case:
        """new: what would stand between the quotes of an f-string, where that is known."""
        if new is None or len(new) > LONGEST:
            return _Case("style-format", "", "call")
        literal = node.child_by_field_name("left") or node.child_by_field_name("function")
        assert literal is not None
        mark = self.tree.part(literal).lstrip("(")[0]
        return _Case("style-format", "", "call", self._edit(node, f"f{mark}{new}{mark}", "style-format"), "f")

    def _plain(self, node: tree_sitter.Node) -> str | None:
        """What stands between the quotes of a string in one line, without prefix; None of others."""
        found = _STRING.match(self.tree.part(node))
        if found is None or found[1] or "\n" in found[3] or "\\N" in found[3] or found[3][:1] == found[2]:
            return None
        return found[3]

    def _fits(self, node: tree_sitter.Node) -> bool:
        """Whether it can stand in the braces of an f-string in every version of Python."""
        text = self.tree.part(node)
        plain = len(text) <= LONGEST_VALUE and not any(sign in text for sign in "\"'\\{}#!: \n")
        return node.type in _SIMPLE and plain

    def _literal(self, node: tree_sitter.Node) -> _Case | None:
        """`{}` and `[]`."""
        sign = _WRITTEN[node.type]
        if node.named_children or self.tree.part(node) != sign or node.parent is None or node.parent.type == "pattern":
            return None
        return _Case("style-literal", "", "sign")
