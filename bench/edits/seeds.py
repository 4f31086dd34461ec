"""Edits put into Python files, with what must follow them, by Python's own `ast` and not by Gesso's tables."""

from __future__ import annotations

import ast
import random
import re
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

MOST_NAMES, MOST_CALLS = 4, 2  # of a file
LEAST_CALLS = 4
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp)
_SIMPLE = re.compile(r"[\w.\[\]\"' ]{1,40}\Z")


@dataclass(frozen=True)
class Seed:
    """edits: (offset, old text, new text), one after the other. expected: the text after all that is due."""

    path: str
    text: str
    edits: tuple[tuple[int, str, str], ...]
    expected: str


class _File:
    def __init__(self, text: str) -> None:
        self.text = text
        self.lines = [line.encode() for line in text.split("\n")]
        self.starts = [0]
        for line in text.split("\n"):
            self.starts.append(self.starts[-1] + len(line) + 1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.tree = ast.parse(text)

    def span(self, node: ast.expr | ast.arg) -> tuple[int, int]:
        assert node.end_lineno is not None and node.end_col_offset is not None
        return self._offset(node.lineno, node.col_offset), self._offset(node.end_lineno, node.end_col_offset)

    def _offset(self, line: int, column: int) -> int:
        return self.starts[line - 1] + len(self.lines[line - 1][:column].decode())

    def replaced(self, spans: list[tuple[int, int]], new: Callable[[str], str]) -> str:
        text = self.text
        for start, end in sorted(spans, reverse=True):
            text = text[:start] + new(text[start:end]) + text[end:]
        return text


def _read(text: str) -> _File | None:
    try:
        return _File(text) if "\r" not in text and "\f" not in text else None
    except (SyntaxError, ValueError):
        return None


def renames(path: str, text: str, chance: random.Random) -> Iterator[Seed]:
    """A parameter or variable of a function without inner scopes is renamed where it first occurs."""
    file = _read(text)
    if file is None:
        return
    found = []
    for function in ast.walk(file.tree):
        if not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if any(isinstance(node, _SCOPES + (ast.GeneratorExp, ast.Global, ast.Nonlocal)) for node in _inside(function)):
            continue
        for name, spans in _locals(file, function).items():
            new = f"{name}_new"
            if len(spans) > 2 and new not in text and not re.search(rf"\b{name}\s*=(?!=)[^=]", _calls_text(text, name)):
                if text[spans[0][0] : spans[0][1]] == name and all(text[a:b] == name for a, b in spans):
                    found.append((spans, new, name))
    chance.shuffle(found)
    for spans, new, name in found[:MOST_NAMES]:
        expected = file.replaced(spans, lambda _, new=new: new)  # type: ignore[misc]
        yield Seed(path, text, ((spans[0][0], name, new),), expected)


def _calls_text(text: str, name: str) -> str:
    """The text around keyword arguments of this name, which callers elsewhere may pass."""
    return "".join(match[0] for match in re.finditer(rf"[(,]\s*{re.escape(name)}\s*=[^=].", text))


def _inside(function: ast.AST) -> Iterator[ast.AST]:
    nodes = ast.walk(function)
    next(nodes)
    return nodes


def _locals(file: _File, function: ast.FunctionDef | ast.AsyncFunctionDef) -> dict[str, list[tuple[int, int]]]:
    """The places of each variable, first one first, if the first is the declaration."""
    places: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    bound: dict[str, int] = {}
    arguments = function.args
    for parameter in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]:
        start, _ = file.span(parameter)
        places[parameter.arg].append((start, start + len(parameter.arg)))
        bound[parameter.arg] = start
    outside = {id(one) for part in [*arguments.defaults, *arguments.kw_defaults, *function.decorator_list] if part
               for one in ast.walk(part)}  # fmt: skip
    outside |= {id(one) for argument in ast.walk(arguments) if isinstance(argument, ast.arg) and argument.annotation
                for one in ast.walk(argument.annotation)}  # fmt: skip
    if function.returns is not None:
        outside |= {id(one) for one in ast.walk(function.returns)}
    for node in ast.walk(function):
        if isinstance(node, ast.Name) and id(node) not in outside:
            span = file.span(node)
            places[node.id].append(span)
            if isinstance(node.ctx, ast.Store):
                bound[node.id] = min(bound.get(node.id, span[0]), span[0])
        elif isinstance(node, (ast.ExceptHandler, ast.alias, ast.MatchAs, ast.Delete)):
            name = getattr(node, "asname", None) or getattr(node, "name", None)
            if name:
                bound[name] = -1
    return {
        name: sorted(spans)
        for name, spans in places.items()
        if name in bound and min(spans)[0] == bound[name] and name not in ("self", "cls", "_")
    }


def repeats(path: str, text: str, chance: random.Random) -> Iterator[Seed]:
    """The first two of several calls of one function are changed in the same way."""
    file = _read(text)
    if file is None:
        return
    calls: defaultdict[tuple[str, int], list[ast.Call]] = defaultdict(list)
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Call) and node.args and not node.keywords and node.lineno == node.end_lineno:
            start, end = file.span(node)
            name = ast.unparse(node.func)
            parts = [text[slice(*file.span(one))] for one in node.args]
            if re.fullmatch(r"[\w.]+", name) and len(name) > 3 and all(map(_SIMPLE.match, parts)):
                if text[start:end] == f"{name}({', '.join(parts)})":
                    calls[name, len(parts)].append(node)
    found = [(key, nodes) for key, nodes in sorted(calls.items()) if len(nodes) >= LEAST_CALLS]
    chance.shuffle(found)
    for (name, count), nodes in found[:MOST_CALLS]:
        change = _change(name, count, chance)
        spans = sorted(file.span(node) for node in nodes)
        lines = [text.count("\n", 0, start) for start, _ in spans]
        if len({*lines}) < len(lines) or any(a[1] > b[0] for a, b in zip(spans, spans[1:], strict=False)):
            continue
        if _others(text, name) != len(spans):
            continue
        edits, shift = [], 0
        for start, end in spans[:2]:
            old, new = text[start:end], change(text[start:end])
            edits.append((start + shift, old, new))
            shift += len(new) - len(old)
        yield Seed(path, text, tuple(edits), file.replaced(spans, change))


def _others(text: str, name: str) -> int:
    return len(re.findall(rf"(?<![\w.]){re.escape(name)}(?!\w)", text))


def _change(name: str, count: int, chance: random.Random) -> Callable[[str], str]:
    """A way to change a call, as people do."""
    inside = lambda call: call[len(name) + 1 : -1]  # noqa: E731
    ways: list[Callable[[str], str]] = [
        lambda call: f"{call[:-1]}, strict=True)",
        lambda call: f"checked({call})",
        lambda call: f"new_module.{name.rsplit('.', 1)[-1]}_all({inside(call)})",
        lambda call: f"({inside(call)}).{name.rsplit('.', 1)[-1]}()" if count == 1 else f"{name}_of(({inside(call)}))",
    ]
    return chance.choice(ways)


SEEDS: dict[str, Callable[[str, str, random.Random], Iterator[Seed]]] = {"rename": renames, "repeat": repeats}
