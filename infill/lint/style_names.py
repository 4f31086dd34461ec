"""Names that are written in another convention than the others of their file, where no other file can see them.

A name is proposed to be changed only in all of its places at once, and only where the tree and the text tell all of
them: variables and parameters of one function, functions within functions, and a Python file's private ones. Never a
member, a keyword, an import, or what a string, a comment or another function says too. Must not know the model.
"""

from __future__ import annotations

import builtins
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from typing import Literal

import tree_sitter

from infill.code.syntax import SyntaxTree
from infill.findings import Range
from infill.lint.kinds import Edit, StyleEdit
from infill.lint.symbols import Name, Survey

Convention = Literal["snake", "camel"]

CODE = "style-naming"
LEAST_NAMES = 5  # of two words and more, in the file's convention
MOST_OTHERS = 0.1  # of them, in the other one; one name is none too many
LEAST_LETTERS = 5  # of a name that is proposed to be changed
LEAST_WORD = 3  # of the longest word in it: `dX` and `kT` are formulas
_OTHER_CUSTOMS = re.compile(
    r"k[A-Z]|assert|.*\d"
)  # constants; like the checks of a library; what digits are is unclear
_SNAKE = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)+")
_CAMEL = re.compile(r"[a-z][a-z0-9]*[A-Z][A-Za-z0-9]*")
_WORDS = re.compile(r"[A-Z]{2,}s(?![a-z])|[A-Z]+(?![a-z])[0-9]*|[A-Z]?[a-z0-9]+")  # userIDs: user, IDs
_VARIABLE_ROLES = frozenset(("use", "call", "bound", "written"))
_PLAIN_ROLES = _VARIABLE_ROLES | {"other"}
_SHORTHANDS = frozenset(
    "shorthand_property_identifier shorthand_property_identifier_pattern shorthand_field_initializer "
    "shorthand_field_identifier field_pattern object_assignment_pattern".split()
)
_BY_NAME = re.compile(r"\b(?:locals|globals|vars|eval|exec|arguments)\b")  # reach variables by what they are called
_SHOWS_NAME = re.compile(r"\s*=\s*[}!:]")  # f"{name=}"
_BUILTINS = frozenset(dir(builtins))
_NESTED = frozenset(("python", "javascript", "typescript", "tsx"))  # where functions within functions are looked at


def convention(name: str) -> Convention | None:
    """How a name of two words or more is written; None for all else, such as `name`, `Name`, `NAME`."""
    core = name.strip("_")
    if _SNAKE.fullmatch(core):
        return "snake"
    return "camel" if _CAMEL.fullmatch(core) else None


def rewritten(name: str, wanted: Convention) -> str:
    """The same words in a convention; underscores at the ends stay."""
    core = name.strip("_")
    at = name.index(core)
    words = [word.lower() for part in core.split("_") for word in _WORDS.findall(part)]
    new = "_".join(words) if wanted == "snake" else words[0] + "".join(word.capitalize() for word in words[1:])
    return name[:at] + new + name[at + len(core) :]


def unusual_names(tree: SyntaxTree, survey: Survey, elsewhere: Set[str] = frozenset()) -> Iterator[StyleEdit]:
    """Where the file writes its variables, or its functions, in one way: those that it writes in the other.

    elsewhere: names that other files have.
    """
    renames = Renames(tree, survey)
    for names in (renames.variables, renames.functions):
        habit = _Habit.of(names)
        for text, at in names.items():
            wanted = habit.against(text)
            if wanted is None or text in elsewhere or not _is_telling(text):
                continue
            new = rewritten(text, wanted)
            places = renames.places(at.start, new)
            if places is not None:
                edit = Edit(at.start, at.end, new, CODE)
                also = tuple(place for place in places if place[0] != at.start)
                yield StyleEdit(edit, habit.same(wanted), habit.other(wanted), also)


def rename_places(tree: SyntaxTree, start: int, new: str) -> list[Range] | None:
    """Every place of the name that stands at `start`, where all of them can become `new` safely; else None."""
    return Renames(tree, Survey(tree)).places(start, new)


@dataclass(frozen=True)
class _Habit:
    """How many names there are in each convention."""

    snake: int
    camel: int

    @staticmethod
    def of(names: Set[str] | dict[str, Name]) -> _Habit:
        written = [convention(name) for name in names]
        return _Habit(written.count("snake"), written.count("camel"))

    def same(self, wanted: Convention) -> int:
        return self.snake if wanted == "snake" else self.camel

    def other(self, wanted: Convention) -> int:
        return self.camel if wanted == "snake" else self.snake

    def against(self, name: str) -> Convention | None:
        """The file's convention, where it is clear and the name has the other one."""
        own = convention(name)
        if own is None:
            return None
        wanted: Convention = "camel" if own == "snake" else "snake"
        same, other = self.same(wanted), self.other(wanted)
        return wanted if same >= LEAST_NAMES and other <= max(1, MOST_OTHERS * same) else None


class Renames:
    """Of one text. variables, functions: by name, where each gets its first value, or is defined."""

    def __init__(self, tree: SyntaxTree, survey: Survey) -> None:
        self.tree, self.survey, self.text = tree, survey, tree.text
        self.by_text: defaultdict[str, list[Name]] = defaultdict(list)
        self.at: dict[int, Name] = {}
        for name in survey.names:
            self.by_text[name.text].append(name)
            self.at[name.start] = name
        self.variables: dict[str, Name] = {}
        self.functions: dict[str, Name] = {}
        for name in survey.names:
            if name.role == "bound" and name.function >= 0 and name.text not in survey.declared:
                self.variables.setdefault(name.text, name)
            elif name.role == "other" and self._defined_by(name) is not None:
                self.functions.setdefault(name.text, name)

    def places(self, start: int, new: str) -> list[Range] | None:
        """Every place of the name that stands at `start`, where all of them can become `new` safely; else None."""
        name = self.at.get(start)
        if name is None or not self._is_free(new):
            return None
        names = self.by_text[name.text]
        if self._count(name.text) != len(names) or any(self._is_tied(one) for one in names):
            return None
        if name.text in self.variables:
            fits = self._is_own_variable(name.text, names)
        else:
            fits = name.text in self.functions and self._is_own_function(name.text, names)
        return [(one.start, one.end) for one in names] if fits else None

    def _is_free(self, new: str) -> bool:
        """Whether nothing in the file can be meant by the new name."""
        return new not in _BUILTINS and not any(one.role in _PLAIN_ROLES for one in self.by_text.get(new, ()))

    def _count(self, text: str) -> int:
        """How often it stands in the file as a word, strings and comments included."""
        return len(re.findall(rf"(?<!\w){re.escape(text)}(?!\w)", self.text))

    def _is_tied(self, name: Name) -> bool:
        """Whether the place says the name for more than its value: as that of a field, or to be printed."""
        node = self._node(name)
        parent = node.parent if node is not None else None
        shorthand = node is not None and (
            node.type in _SHORTHANDS or (parent is not None and parent.type in _SHORTHANDS)
        )
        shown = parent is not None and parent.type == "interpolation" and _SHOWS_NAME.match(self.text, name.end)
        return shorthand or bool(shown)

    def _is_own_variable(self, text: str, names: Sequence[Name]) -> bool:
        """Whether it is a variable of one function that nothing from outside can reach."""
        holders = [index for index, function in enumerate(self.survey.functions) if text in function.bound]
        if len(holders) != 1 or any(name.role not in _VARIABLE_ROLES for name in names):
            return False
        holder = self.survey.functions[holders[0]]
        if any(not holder.start <= name.start < holder.end for name in names):
            return False
        if _BY_NAME.search(self.text, holder.start, holder.end):
            return False
        return text not in holder.parameters or self._may_rename_parameter(holders[0], names)

    def _may_rename_parameter(self, index: int, names: Sequence[Name]) -> bool:
        """In Python callers may name a parameter, so only of a function that they cannot see, and that is no method."""
        for name in names:
            node = self._node(name)
            if node is not None and node.parent is not None:
                if any(child.type == "accessibility_modifier" for child in node.parent.children):
                    return False
        if self.tree.language.id != "python":
            return True
        function = self.survey.functions[index]
        node = self.tree.root.descendant_for_byte_range(self.tree.byte(function.start), self.tree.byte(function.end))
        named = node.child_by_field_name("name") if node is not None else None
        if node is None or named is None or (node.parent is not None and node.parent.type == "decorated_definition"):
            return False
        return not self._is_in_class(node) and (function.outer >= 0 or _is_private(self.tree.part(named)))

    def _is_own_function(self, text: str, names: Sequence[Name]) -> bool:
        """Whether it is one definition within a function, or a private one of a Python file, that is plainly used."""
        defined = [name for name in names if name.role == "other"]
        if len(defined) != 1 or any(name.role not in ("use", "call", "other") for name in names):
            return False
        node = self._defined_by(defined[0])
        if node is None or node.type == "class_definition" or self._is_in_class(node):
            return False
        if node.parent is not None and node.parent.type in ("decorated_definition", "export_statement"):
            return False
        outer = defined[0].function
        # the function itself is the innermost around its own name
        outer = self.survey.functions[outer].outer if outer >= 0 and self._begins(outer, node) else outer
        if outer < 0:
            return self.tree.language.id == "python" and _is_private(text)
        around = self.survey.functions[outer]
        return self.tree.language.id in _NESTED and all(around.start <= name.start < around.end for name in names)

    def _begins(self, index: int, node: tree_sitter.Node) -> bool:
        return self.survey.functions[index].start == self.tree.span(node).start

    def _defined_by(self, name: Name) -> tree_sitter.Node | None:
        """The function whose name this is, where it is one's."""
        node = self._node(name)
        parent = node.parent if node is not None else None
        if parent is None or self.tree.language.scopes.get(parent.type) not in ("function", "method"):
            return None
        return parent if parent.child_by_field_name("name") == node else None

    def _is_in_class(self, node: tree_sitter.Node) -> bool:
        """Whether a class is the innermost scope around a definition."""
        scopes, above = self.tree.language.scopes, node.parent
        while above is not None and above.type not in scopes:
            above = above.parent
        return above is not None and scopes[above.type] not in ("function", "method")

    def _node(self, name: Name) -> tree_sitter.Node | None:
        return self.tree.root.descendant_for_byte_range(self.tree.byte(name.start), self.tree.byte(name.end))


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def _is_telling(name: str) -> bool:
    """Whether it is so plainly of its convention that it can be meant as nothing else."""
    words = _WORDS.findall(name.replace("_", " "))
    long = sum(map(len, words)) >= LEAST_LETTERS and max(map(len, words)) >= LEAST_WORD
    return long and not _OTHER_CUSTOMS.match(name.strip("_"))
