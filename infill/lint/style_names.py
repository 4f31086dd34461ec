"""Names that break the naming convention of their file, if no other file can see them.

A name is renamed in all positions at once, and only if the tree and the text show all of them: variables and parameters
of one function, nested functions, and private functions of a Python file. Never a member, a keyword, an import, or a
name that also occurs in a string, a comment or another function. Must not know the model.
"""

from __future__ import annotations

import builtins
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from typing import Literal

import tree_sitter

from engine.errors import Stop, leave_if
from infill.code.syntax import SyntaxTree
from infill.findings import Range
from infill.lint.kinds import Edit, StyleEdit
from infill.lint.symbols import Name, SymbolTable

Convention = Literal["snake", "camel"]

CODE = "style-naming"
MIN_NAMES = 5  # names of two words or more that follow the convention
MAX_EXCEPTIONS = 0.1  # as a share of those; one is always allowed
MIN_LETTERS = 5  # in a name
MIN_WORD = 3  # letters of its longest word: `dX` and `kT` are from formulas
# constants (kMax), assertions in the style of a library (assertEqual), and digits, which have no clear split
_EXEMPT = re.compile(r"k[A-Z]|assert|.*\d")
_SNAKE = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)+")
_CAMEL = re.compile(r"[a-z][a-z0-9]*[A-Z][A-Za-z0-9]*")
_WORDS = re.compile(r"[A-Z]{2,}s(?![a-z])|[A-Z]+(?![a-z])[0-9]*|[A-Z]?[a-z0-9]+")  # userIDs: user, IDs
_VARIABLE_ROLES = frozenset(("use", "call", "bound", "written"))
_PLAIN_ROLES = _VARIABLE_ROLES | {"other"}
_SHORTHANDS = frozenset(
    "shorthand_property_identifier shorthand_property_identifier_pattern shorthand_field_initializer "
    "shorthand_field_identifier field_pattern object_assignment_pattern".split()
)
_REFLECTION = re.compile(r"\b(?:locals|globals|vars|eval|exec|arguments)\b")  # access variables by name
_PRINTS_NAME = re.compile(r"\s*=\s*[}!:]")  # f"{name=}"
_BUILTINS = frozenset(dir(builtins))
_NESTED = frozenset(("python", "javascript", "typescript", "tsx"))  # languages in which nested functions are renamed


def convention(name: str) -> Convention | None:
    """The convention of a name of two words or more; None for other names, such as `name`, `Name`, `NAME`."""
    core = name.strip("_")
    if _SNAKE.fullmatch(core):
        return "snake"
    return "camel" if _CAMEL.fullmatch(core) else None


def convert(name: str, target: Convention) -> str:
    """The name in another convention; leading and trailing underscores stay."""
    core = name.strip("_")
    at = name.index(core)
    words = [word.lower() for part in core.split("_") for word in _WORDS.findall(part)]
    new = "_".join(words) if target == "snake" else words[0] + "".join(word.capitalize() for word in words[1:])
    return name[:at] + new + name[at + len(core) :]


def unusual_names(
    tree: SyntaxTree, symbols: SymbolTable, neighbour_names: Set[str] = frozenset(), stop: Stop | None = None
) -> Iterator[StyleEdit]:
    """Renames of variables, and of functions, that break the convention the file follows for them.

    neighbour_names: names that other files use. stop: polled; once it returns True, Cancelled is raised.
    """
    renames = Renames(tree, symbols, stop)
    for names in (renames.variables, renames.functions):
        counts = _Counts.of(names)
        for text, first in names.items():
            leave_if(stop)
            target = counts.violated_by(text)
            if target is None or text in neighbour_names or not _is_clear(text):
                continue
            new = convert(text, target)
            ranges = renames.ranges(first.start, new)
            if ranges is not None:
                edit = Edit(first.start, first.end, new, CODE)
                also = tuple(one for one in ranges if one[0] != first.start)
                yield StyleEdit(edit, counts.same(target), counts.other(target), also)


def rename_places(tree: SyntaxTree, start: int, new: str) -> list[Range] | None:
    """Every range of the name at `start`; None if renaming it to `new` may change what the code does."""
    return Renames(tree, SymbolTable(tree)).ranges(start, new)


@dataclass(frozen=True)
class _Counts:
    """How many names follow each convention."""

    snake: int
    camel: int

    @staticmethod
    def of(names: Iterable[str]) -> _Counts:
        conventions = [convention(name) for name in names]
        return _Counts(conventions.count("snake"), conventions.count("camel"))

    def same(self, target: Convention) -> int:
        return self.snake if target == "snake" else self.camel

    def other(self, target: Convention) -> int:
        return self.camel if target == "snake" else self.snake

    def violated_by(self, name: str) -> Convention | None:
        """The convention of the file, if it has one and `name` is in the other."""
        current = convention(name)
        if current is None:
            return None
        target: Convention = "camel" if current == "snake" else "snake"
        same, other = self.same(target), self.other(target)
        return target if same >= MIN_NAMES and other <= max(1, MAX_EXCEPTIONS * same) else None


class Renames:
    """Safe renames in one file. variables, functions: the first binding, or the definition, of each name."""

    def __init__(self, tree: SyntaxTree, symbols: SymbolTable, stop: Stop | None = None) -> None:
        self.tree, self.symbols, self.text = tree, symbols, tree.text
        self.by_text: defaultdict[str, list[Name]] = defaultdict(list)
        self.by_start: dict[int, Name] = {}
        for name in symbols.names:
            self.by_text[name.text].append(name)
            self.by_start[name.start] = name
        self.variables: dict[str, Name] = {}
        self.functions: dict[str, Name] = {}
        for name in symbols.names:
            leave_if(stop)
            if name.role == "bound" and name.function >= 0 and name.text not in symbols.declared:
                self.variables.setdefault(name.text, name)
            elif name.role == "other" and self._definition(name) is not None:
                self.functions.setdefault(name.text, name)

    def ranges(self, start: int, new: str) -> list[Range] | None:
        """Every range of the name at `start`; None if renaming it to `new` may change what the code does."""
        name = self.by_start.get(start)
        if name is None or not self._is_unused(new):
            return None
        names = self.by_text[name.text]
        if self._count(name.text) != len(names) or any(self._exposes_name(one) for one in names):
            return None
        if name.text in self.variables:
            fits = self._is_local_variable(name.text, names)
        else:
            fits = name.text in self.functions and self._is_local_function(name.text, names)
        return [(one.start, one.end) for one in names] if fits else None

    def _is_unused(self, new: str) -> bool:
        """Whether nothing in the file uses the new name."""
        return new not in _BUILTINS and not any(one.role in _PLAIN_ROLES for one in self.by_text.get(new, ()))

    def _count(self, text: str) -> int:
        """How often the word occurs in the file, strings and comments included."""
        return len(re.findall(rf"(?<!\w){re.escape(text)}(?!\w)", self.text))

    def _exposes_name(self, name: Name) -> bool:
        """Whether the code uses the name itself, not only its value: as a field, or in printed text."""
        node = self._node(name)
        parent = node.parent if node is not None else None
        shorthand = node is not None and (
            node.type in _SHORTHANDS or (parent is not None and parent.type in _SHORTHANDS)
        )
        shown = parent is not None and parent.type == "interpolation" and _PRINTS_NAME.match(self.text, name.end)
        return shorthand or bool(shown)

    def _is_local_variable(self, text: str, names: Sequence[Name]) -> bool:
        """Whether it is a variable of one function that no other code can access."""
        owners = [index for index, function in enumerate(self.symbols.functions) if text in function.bound]
        if len(owners) != 1 or any(name.role not in _VARIABLE_ROLES for name in names):
            return False
        owner = self.symbols.functions[owners[0]]
        if any(not owner.start <= name.start < owner.end for name in names):
            return False
        if _REFLECTION.search(self.text, owner.start, owner.end):
            return False
        return text not in owner.parameters or self._may_rename_parameter(owners[0], names)

    def _may_rename_parameter(self, index: int, names: Sequence[Name]) -> bool:
        """Whether no caller can pass the parameter by name. In Python: only if the function is private and not a
        method."""
        for name in names:
            node = self._node(name)
            if node is not None and node.parent is not None:
                if any(child.type == "accessibility_modifier" for child in node.parent.children):
                    return False
        if self.tree.language.id != "python":
            return True
        function = self.symbols.functions[index]
        node = self.tree.root.descendant_for_byte_range(self.tree.byte(function.start), self.tree.byte(function.end))
        named = node.child_by_field_name("name") if node is not None else None
        if node is None or named is None or (node.parent is not None and node.parent.type == "decorated_definition"):
            return False
        return not self._is_in_class(node) and (function.outer >= 0 or _is_private(self.tree.part(named)))

    def _is_local_function(self, text: str, names: Sequence[Name]) -> bool:
        """Whether it is the only definition of a nested function, or of a private function of a Python file."""
        defined = [name for name in names if name.role == "other"]
        if len(defined) != 1 or any(name.role not in ("use", "call", "other") for name in names):
            return False
        node = self._definition(defined[0])
        if node is None or node.type == "class_definition" or self._is_in_class(node):
            return False
        if node.parent is not None and node.parent.type in ("decorated_definition", "export_statement"):
            return False
        outer = defined[0].function
        # a function is the innermost scope of its own name
        outer = self.symbols.functions[outer].outer if outer >= 0 and self._begins(outer, node) else outer
        if outer < 0:
            return self.tree.language.id == "python" and _is_private(text)
        outer_function = self.symbols.functions[outer]
        return self.tree.language.id in _NESTED and all(
            outer_function.start <= name.start < outer_function.end for name in names
        )

    def _begins(self, index: int, node: tree_sitter.Node) -> bool:
        return self.symbols.functions[index].start == self.tree.span(node).start

    def _definition(self, name: Name) -> tree_sitter.Node | None:
        """The function that this name defines, if any."""
        node = self._node(name)
        parent = node.parent if node is not None else None
        if parent is None or self.tree.language.scopes.get(parent.type) not in ("function", "method"):
            return None
        return parent if parent.child_by_field_name("name") == node else None

    def _is_in_class(self, node: tree_sitter.Node) -> bool:
        """Whether a class is the innermost scope around a definition."""
        scopes, ancestor = self.tree.language.scopes, node.parent
        while ancestor is not None and ancestor.type not in scopes:
            ancestor = ancestor.parent
        return ancestor is not None and scopes[ancestor.type] not in ("function", "method")

    def _node(self, name: Name) -> tree_sitter.Node | None:
        return self.tree.root.descendant_for_byte_range(self.tree.byte(name.start), self.tree.byte(name.end))


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def _is_clear(name: str) -> bool:
    """Whether the name is long enough to be a clear case of its convention."""
    words = _WORDS.findall(name.replace("_", " "))
    long = sum(map(len, words)) >= MIN_LETTERS and max(map(len, words)) >= MIN_WORD
    return long and not _EXEMPT.match(name.strip("_"))
