"""Candidate edits, kind by kind: a different name, two arguments swapped, and those of `infill.lint.slips`.

Edits never touch comments, the wording of strings, or layout. There are far more candidates than bugs; the model
chooses. Must not know the model.
"""

from __future__ import annotations

import builtins
import re
from collections.abc import Iterator, Sequence
from functools import cached_property

import tree_sitter

from engine.errors import Stop, leave_if, pacer
from infill.code.syntax import SyntaxTree
from infill.findings import Range
from infill.lint.copies import stale_copies
from infill.lint.kinds import Edit
from infill.lint.ranges import RangeIndex, disjoint
from infill.lint.slips import Slips
from infill.lint.symbols import ARGUMENT_LISTS, PARAMETERS, Name, SymbolTable, called_name

_SIMPLE = frozenset(
    "identifier attribute member_expression selector_expression field_expression field_access subscript integer float "
    "number string true false none call call_expression unary_operator binary_operator".split()
)
MAX_ARGUMENTS = 60  # characters of two arguments together
MAX_ARGUMENT_BYTES = 1_000  # of the same, with what is between them
_SYMMETRIC = frozenset("min max print zip union intersection gcd hypot allclose isclose array_equal".split())
_GLOBALS = {"python": frozenset(dir(builtins))} | dict.fromkeys(
    ("javascript", "typescript", "tsx"),
    frozenset(
        "Array ArrayBuffer Atomics BigInt Boolean DataView Date Error EvalError Function Infinity Intl JSON Map "
        "Math NaN Number Object Promise Proxy RangeError ReferenceError Reflect RegExp Set String Symbol "
        "SyntaxError TypeError URIError WeakMap WeakRef WeakSet arguments decodeURI decodeURIComponent encodeURI "
        "encodeURIComponent escape eval globalThis isFinite isNaN parseFloat parseInt undefined unescape "
        "AbortController AbortSignal Blob Buffer Event EventTarget File FormData Headers Image Request Response "
        "TextDecoder TextEncoder URL URLSearchParams WebSocket Worker XMLHttpRequest alert atob btoa "
        "clearImmediate clearInterval clearTimeout console crypto document exports fetch global history "
        "localStorage location module navigator performance process queueMicrotask requestAnimationFrame require "
        "self sessionStorage setImmediate setInterval setTimeout structuredClone window".split()
    ),
)
MAX_ALTERNATIVES = 12
MIN_MISSPELLED = 4  # characters
_ASSIGNED = re.compile(r"[ \t]*(?::[^=\n]*)?=(?!=)")
_KEY = re.compile(r"[\"']([^\W\d]\w*)[\"']\Z")


def find_edits(tree: SyntaxTree, symbols: SymbolTable, ranges: Sequence[Range], stop: Stop | None = None) -> list[Edit]:
    """All edits within `ranges`, in text order. If two kinds propose the same edit, the first kind of
    `infill.lint.kinds.KINDS` keeps it. Raises Cancelled once `stop` returns True."""
    finder = _Finder(tree, symbols, ranges, stop)
    found: dict[tuple[int, int, str], Edit] = {}
    pace = pacer(stop)
    for find in (
        finder.misspelled,
        finder.copy_paste,
        finder.missing_self,
        finder.wrong_name,
        finder.wrong_member,
        finder.swapped_arguments,
        finder.slips,
    ):
        for edit in find():
            pace()
            if edit.replacement != tree.text[edit.start : edit.end]:
                found.setdefault((edit.start, edit.end, edit.replacement), edit)
    return sorted(found.values(), key=lambda edit: edit.start << 32 | edit.end)


class _Finder:
    def __init__(self, tree: SyntaxTree, symbols: SymbolTable, ranges: Sequence[Range], stop: Stop | None) -> None:
        self.tree, self.symbols, self.text, self.stop = tree, symbols, tree.text, stop
        self.ranges = disjoint(ranges)
        self._index = RangeIndex(self.ranges)

    @cached_property
    def names(self) -> list[Name]:
        """The names within the ranges."""
        return [name for name in self.symbols.names if self._in_ranges(name.start, name.end)]

    def _in_ranges(self, start: int, end: int) -> bool:
        return self._index.contains(start, end)

    def misspelled(self) -> Iterator[Edit]:
        """A name or key that occurs once in the file and is a typo away from a more frequent one."""
        keys = [(start, end, text) for start, end, text in self.keys if self._in_ranges(start, end)]
        names = [(name.start, name.end, name.text) for name in self.names if name.role not in ("bound", "other")]
        for start, end, text in [*names, *keys]:
            leave_if(self.stop)
            if len(text) < MIN_MISSPELLED or self.counts.get(text, 0) != 1:
                continue
            for other in self._similar(text):
                yield Edit(start, end, other, "misspelled")

    @cached_property
    def keys(self) -> list[tuple[int, int, str]]:
        """(start, end, text) of the strings used as names: keys of dictionaries and subscripts, without quotes."""
        found = []
        for node in self._nodes(frozenset(("string",)), ((0, len(self.text)),)):
            parent = node.parent
            if parent is None or parent.type not in ("subscript", "pair", "subscript_expression", "index_expression"):
                continue
            if parent.type == "pair" and parent.child_by_field_name("key") != node:
                continue
            if match := _KEY.match(self.tree.part(node)):
                start, _ = self.tree.span(node)
                found.append((start + match.start(1), start + match.end(1), match[1]))
        return found

    @cached_property
    def counts(self) -> dict[str, int]:
        """How often each name or key occurs in the file."""
        counts = dict(self.symbols.counts)
        for _, _, text in self.keys:
            counts[text] = counts.get(text, 0) + 1
        return counts

    @cached_property
    def _by_deletion(self) -> dict[str, list[str]]:
        """Repeated names by themselves and by every string with one letter deleted: names one typo apart share one."""
        index: dict[str, list[str]] = {}
        for name, count in self.counts.items():
            if count > 1 and len(name) >= MIN_MISSPELLED:
                for deletion in _deletions(name):
                    index.setdefault(deletion, []).append(name)
        return index

    def _similar(self, text: str) -> list[str]:
        similar = dict.fromkeys(name for deletion in _deletions(text) for name in self._by_deletion.get(deletion, ()))
        return [name for name in similar if name != text and _is_typo(text, name)]

    def copy_paste(self) -> Iterator[Edit]:
        """A name that a copied line did not change although it changed the others like it."""
        starts = {name.start for name in self.symbols.names}
        for start, end, replacement in stale_copies(self.text, self.stop):
            if start in starts and self._in_ranges(start, end):
                yield Edit(start, end, replacement, "copy-paste")

    def missing_self(self) -> Iterator[Edit]:
        """A member of `self` or `this` whose bare name can mean nothing else: an undefined name, or one assigned on a
        line and read nowhere else in a function that continues."""
        for owner in ("self", "this"):
            members = self.symbols.members[owner]
            if members:
                members = members | self.symbols.declared
            for name in self.names:
                leave_if(self.stop)
                if name.text not in members or name.function < 0:
                    continue
                visible = self.symbols.visible(name.function, len(self.text))
                if (owner == "self" and owner not in visible) or self._is_global(name.text) or not self._in_body(name):
                    continue
                undefined = name.role in ("use", "call") and name.text not in visible
                if undefined or (name.role == "bound" and self._begins_assignment(name) and self._is_unread(name)):
                    yield Edit(name.start, name.end, f"{owner}.{name.text}", "missing-self")

    def _is_global(self, text: str) -> bool:
        """Whether the name is, or may be, visible in the whole file."""
        is_builtin = text in _GLOBALS.get(self.tree.language.id, ())
        return text in self.symbols.shared or is_builtin or self.symbols.is_open

    def _in_body(self, name: Name) -> bool:
        """Whether the name is in the body of its function: not among the parameters, nor in a nested class."""
        node = self.tree.root.descendant_for_byte_range(self.tree.byte(name.start), self.tree.byte(name.end))
        scopes = self.tree.language.scopes
        while node is not None and scopes.get(node.type) not in ("function", "method"):
            if node.type in PARAMETERS or scopes.get(node.type) == "class":
                return False
            node = node.parent
        return True

    def _is_unread(self, name: Name) -> bool:
        """Whether the function continues below the line of `name` and reads this variable on no other line.

        The last line of a function does not count: its author may still be writing."""
        first, last = self.text.rfind("\n", 0, name.start) + 1, self.text.find("\n", name.end)
        last = last if last >= 0 else len(self.text)
        function = self.symbols.functions[name.function]
        others = [
            other
            for other in self.symbols.names
            if function.start <= other.start < function.end and not first <= other.start < last
        ]
        is_read = any(other.text == name.text and other.role in ("use", "call", "written") for other in others)
        return not is_read and any(other.start >= last for other in others)

    def _begins_assignment(self, name: Name) -> bool:
        line = self.text.rfind("\n", 0, name.start) + 1
        return not self.text[line : name.start].strip() and bool(_ASSIGNED.match(self.text, name.end))

    def wrong_name(self) -> Iterator[Edit]:
        """A variable for another one of the same function, or of an enclosing one."""
        for name in self.names:
            leave_if(self.stop)
            if name.role not in ("use", "call") or name.function < 0:
                continue
            visible = self.symbols.visible(name.function, name.start)
            if name.text not in visible:
                if name.text in self._constants:
                    for other in self._constants[:MAX_ALTERNATIVES]:
                        yield Edit(name.start, name.end, other, "wrong-name")
                continue
            local = self.symbols.functions[name.function].bound
            others = [other for other in visible if other not in (name.text, "self", "cls", "_")]
            others.sort(key=lambda other: (other not in local, -visible[other]))
            for other in others[:MAX_ALTERNATIVES]:
                yield Edit(name.start, name.end, other, "wrong-name")

    @cached_property
    def _constants(self) -> list[str]:
        """The names in capitals that the whole file sees."""
        return sorted(name for name in self.symbols.shared if len(name) > 1 and name.isupper())

    def wrong_member(self) -> Iterator[Edit]:
        """A member for another one of the same object, used in the same way."""
        used: dict[tuple[str, str], dict[str, None]] = {}
        for name in self.symbols.names:
            if name.role in ("attribute", "method") and name.owner:
                used.setdefault((name.owner, name.role), {})[name.text] = None
        for name in self.names:
            leave_if(self.stop)
            others = used.get((name.owner, name.role), {})
            if name.role not in ("attribute", "method") or len(others) < 2:
                continue
            ranked = sorted(others, key=lambda other: -self.symbols.counts[other])
            for other in ranked[: MAX_ALTERNATIVES + 1]:
                yield Edit(name.start, name.end, other, "wrong-member")

    def slips(self) -> Iterator[Edit]:
        """Edits of operators, numbers and missing words."""
        for edit in Slips(self.tree, self.symbols).find(self._nodes(None, self.ranges)):
            if self._in_ranges(edit.start, edit.end):
                yield edit

    def swapped_arguments(self) -> Iterator[Edit]:
        """Two neighbouring arguments of a call, unless the order means nothing."""
        for node in self._nodes(ARGUMENT_LISTS, self.ranges):
            arguments, is_bases = (
                node.named_children,
                node.parent is not None and node.parent.type == "class_definition",
            )
            if is_bases or self._is_unordered(node, arguments):
                continue
            for one, other in zip(arguments, arguments[1:], strict=False):
                leave_if(self.stop)
                if other.end_byte - one.start_byte > MAX_ARGUMENT_BYTES:
                    continue
                first, second = self.tree.part(one), self.tree.part(other)
                is_short = len(first) + len(second) < MAX_ARGUMENTS
                if one.type in _SIMPLE and other.type in _SIMPLE and is_short and first != second:
                    start, middle = self.tree.span(one)
                    last, end = self.tree.span(other)
                    yield Edit(start, end, second + self.text[middle:last] + first, "swapped-arguments")

    def _is_unordered(self, node: tree_sitter.Node, arguments: Sequence[tree_sitter.Node]) -> bool:
        """Whether the callee ignores the order of its arguments (`min`) or takes it from a format string, or whether
        they are the bases of a class."""
        if node.parent is not None and node.parent.type == "class_definition":
            return True
        is_format = bool(arguments) and "%" in self.tree.part(arguments[0]) and arguments[0].type == "string"
        return called_name(self.tree, node) in _SYMMETRIC or is_format

    def _nodes(self, types: frozenset[str] | None, ranges: Sequence[Range]) -> Iterator[tree_sitter.Node]:
        """The nodes of these types within `ranges`, outside comments; with None all that overlap `ranges`."""
        windows = RangeIndex([(self.tree.byte(start), self.tree.byte(end)) for start, end in ranges])
        pending, pace = [self.tree.root], pacer(self.stop)
        while pending:
            pace()
            node = pending.pop()
            if not windows.overlaps(node.start_byte, node.end_byte):
                continue
            if types is None or (node.type in types and windows.contains(node.start_byte, node.end_byte)):
                yield node
            if node.type not in self.tree.language.comments:
                pending.extend(reversed(node.children))


def _deletions(name: str) -> set[str]:
    return {name, *(name[:index] + name[index + 1 :] for index in range(len(name)))}


def _is_typo(one: str, other: str) -> bool:
    """Whether two names differ by one letter (added, dropped or changed) or by two adjacent letters swapped.

    Names that differ in the first letter, in a digit, in case only, or in a final `s` are different names.
    """
    if one[0] != other[0] or one.lower() == other.lower() or one + "s" == other or other + "s" == one:
        return False
    first = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    a, b = one[first:], other[first:]
    if any(character.isdigit() for character in a[:1] + b[:1]):
        return False
    swapped = len(a) > 1 and a[:2] == b[:2][::-1] and a[2:] == b[2:]
    return swapped or a[1:] == b[1:] or a[1:] == b or a == b[1:]
