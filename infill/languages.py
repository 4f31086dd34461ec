"""The languages Gesso knows: their files and grammars, and how each spells blocks, strings and brackets.

This is the one table to extend for a new language. It must not know the cursor, the model or any prompt.
Grammars are loaded when first asked for; a language whose grammar wheel is not installed simply has no tree.
"""

from __future__ import annotations

import importlib
import os.path
import re
from dataclasses import dataclass, field
from functools import cache
from typing import Literal, NamedTuple

import tree_sitter

CLOSERS = {"(": ")", "[": "]", "{": "}", "${": "}"}
OPENERS = {")": ("(",), "]": ("[",), "}": ("{", "${")}


@dataclass(frozen=True)
class Language:
    """One language. Node types are those of its tree-sitter grammar; `scopes` maps a node type to its kind.

    `statements` are the node types that count as a statement besides every type that ends in `_statement`.
    """

    id: str
    extensions: tuple[str, ...]
    grammar_module: str
    lexis: Literal["python", "javascript", "go", "rust", "java", "c"]
    statements: frozenset[str]
    blocks: frozenset[str]
    scopes: dict[str, str] = field(hash=False)
    imports: frozenset[str]
    strings: frozenset[str]
    comments: frozenset[str]
    filenames: tuple[str, ...] = ()
    interpreters: tuple[str, ...] = ()
    grammar_function: str = "language"
    line_comment: str = "//"
    block_opener: Literal[":", "{"] = "{"
    indentation_sensitive: bool = False
    brackets: tuple[tuple[str, str], ...] = (("(", ")"), ("[", "]"), ("{", "}"))

    def is_statement(self, node_type: str) -> bool:
        return node_type.endswith("_statement") or node_type in self.statements

    def grammar(self) -> tree_sitter.Language | None:
        """The grammar, loaded on first use; None when its wheel is not installed."""
        return _load_grammar(self.grammar_module, self.grammar_function)


@cache
def _load_grammar(module: str, function: str) -> tree_sitter.Language | None:
    try:
        return tree_sitter.Language(getattr(importlib.import_module(module), function)())
    except ImportError:
        return None


def _set(names: str) -> frozenset[str]:
    return frozenset(names.split())


_PYTHON = Language(
    id="python",
    extensions=(".py", ".pyi", ".pyw"),
    filenames=("SConstruct", "SConscript", "wscript"),
    interpreters=("python", "pypy"),
    grammar_module="tree_sitter_python",
    lexis="python",
    line_comment="#",
    block_opener=":",
    indentation_sensitive=True,
    statements=_set("function_definition class_definition decorated_definition"),
    blocks=_set("block"),
    scopes={"function_definition": "function", "class_definition": "class"},
    imports=_set("import_statement import_from_statement future_import_statement"),
    strings=_set("string"),
    comments=_set("comment"),
)

_JAVASCRIPT_STATEMENTS = _set(
    "variable_declaration lexical_declaration function_declaration generator_function_declaration "
    "class_declaration"
)
_JAVASCRIPT_SCOPES = {
    "function_declaration": "function",
    "generator_function_declaration": "function",
    "function_expression": "function",
    "generator_function": "function",
    "arrow_function": "function",
    "method_definition": "method",
    "class_declaration": "class",
    "class": "class",
}
_JAVASCRIPT = Language(
    id="javascript",
    extensions=(".js", ".mjs", ".cjs", ".jsx"),
    filenames=("Jakefile",),
    interpreters=("node", "nodejs", "bun"),
    grammar_module="tree_sitter_javascript",
    lexis="javascript",
    statements=_JAVASCRIPT_STATEMENTS,
    blocks=_set("statement_block class_body switch_body"),
    scopes=_JAVASCRIPT_SCOPES,
    imports=_set("import_statement"),
    strings=_set("string template_string regex"),
    comments=_set("comment html_comment"),
)

_TYPESCRIPT_STATEMENTS = _JAVASCRIPT_STATEMENTS | _set(
    "interface_declaration type_alias_declaration enum_declaration abstract_class_declaration "
    "function_signature ambient_declaration import_alias"
)
_TYPESCRIPT_SCOPES = _JAVASCRIPT_SCOPES | {
    "abstract_class_declaration": "class",
    "interface_declaration": "interface",
    "enum_declaration": "enum",
    "internal_module": "namespace",
    "module": "namespace",
}


def _typescript(language_id: str, extensions: tuple[str, ...], interpreters: tuple[str, ...]) -> Language:
    return Language(
        id=language_id,
        extensions=extensions,
        interpreters=interpreters,
        grammar_module="tree_sitter_typescript",
        grammar_function=f"language_{language_id}",
        lexis="javascript",
        statements=_TYPESCRIPT_STATEMENTS,
        blocks=_set("statement_block class_body switch_body interface_body enum_body object_type"),
        scopes=_TYPESCRIPT_SCOPES,
        imports=_set("import_statement import_alias"),
        strings=_set("string template_string regex"),
        comments=_set("comment html_comment"),
    )


_TYPESCRIPT = _typescript("typescript", (".ts", ".mts", ".cts"), ("deno", "ts-node", "tsx"))
_TSX = _typescript("tsx", (".tsx",), ())

_GO = Language(
    id="go",
    extensions=(".go",),
    grammar_module="tree_sitter_go",
    lexis="go",
    statements=_set(
        "short_var_declaration var_declaration const_declaration type_declaration import_declaration "
        "package_clause function_declaration method_declaration"
    ),
    blocks=_set("block field_declaration_list"),
    scopes={
        "function_declaration": "function",
        "method_declaration": "method",
        "func_literal": "function",
        "type_spec": "class",
    },
    imports=_set("import_declaration"),
    strings=_set("interpreted_string_literal raw_string_literal rune_literal"),
    comments=_set("comment"),
)

_RUST = Language(
    id="rust",
    extensions=(".rs",),
    grammar_module="tree_sitter_rust",
    lexis="rust",
    statements=_set(
        "let_declaration use_declaration function_item impl_item struct_item enum_item union_item trait_item "
        "mod_item const_item static_item type_item macro_definition extern_crate_declaration "
        "foreign_mod_item function_signature_item attribute_item inner_attribute_item"
    ),
    blocks=_set("block declaration_list field_declaration_list enum_variant_list match_block"),
    scopes={
        "function_item": "function",
        "impl_item": "class",
        "struct_item": "class",
        "union_item": "class",
        "enum_item": "enum",
        "trait_item": "interface",
        "mod_item": "namespace",
    },
    imports=_set("use_declaration extern_crate_declaration"),
    strings=_set("string_literal raw_string_literal char_literal"),
    comments=_set("line_comment block_comment"),
)

_JAVA = Language(
    id="java",
    extensions=(".java",),
    grammar_module="tree_sitter_java",
    lexis="java",
    statements=_set(
        "local_variable_declaration switch_expression import_declaration package_declaration "
        "class_declaration interface_declaration enum_declaration record_declaration "
        "annotation_type_declaration method_declaration constructor_declaration field_declaration"
    ),
    blocks=_set(
        "block class_body interface_body enum_body constructor_body switch_block annotation_type_body"
    ),
    scopes={
        "class_declaration": "class",
        "interface_declaration": "interface",
        "annotation_type_declaration": "interface",
        "enum_declaration": "enum",
        "record_declaration": "class",
        "method_declaration": "method",
        "constructor_declaration": "method",
        "compact_constructor_declaration": "method",
        "lambda_expression": "function",
    },
    imports=_set("import_declaration"),
    strings=_set("string_literal character_literal"),
    comments=_set("line_comment block_comment"),
)

_C_STATEMENTS = _set(
    "declaration type_definition function_definition field_declaration preproc_include preproc_def "
    "preproc_function_def preproc_call"
)
_C = Language(
    id="c",
    extensions=(".c", ".h"),
    grammar_module="tree_sitter_c",
    lexis="c",
    statements=_C_STATEMENTS,
    blocks=_set("compound_statement field_declaration_list enumerator_list"),
    scopes={
        "function_definition": "function",
        "struct_specifier": "class",
        "union_specifier": "class",
        "enum_specifier": "enum",
    },
    imports=_set("preproc_include"),
    strings=_set("string_literal char_literal system_lib_string"),
    comments=_set("comment"),
)
_CPP = Language(
    id="cpp",
    extensions=tuple(".cc .cpp .cxx .c++ .C .hh .hpp .hxx .h++ .H .ipp .inl .tpp".split()),
    grammar_module="tree_sitter_cpp",
    lexis="c",
    statements=_C_STATEMENTS
    | _set(
        "for_range_loop using_declaration alias_declaration namespace_definition namespace_alias_definition "
        "template_declaration static_assert_declaration"
    ),
    blocks=_set("compound_statement field_declaration_list enumerator_list declaration_list"),
    scopes={
        "function_definition": "function",
        "class_specifier": "class",
        "struct_specifier": "class",
        "union_specifier": "class",
        "enum_specifier": "enum",
        "namespace_definition": "namespace",
        "lambda_expression": "function",
    },
    imports=_set("preproc_include using_declaration"),
    strings=_set("string_literal char_literal raw_string_literal system_lib_string"),
    comments=_set("comment"),
)

LANGUAGES = {
    language.id: language
    for language in (_PYTHON, _JAVASCRIPT, _TYPESCRIPT, _TSX, _GO, _RUST, _JAVA, _C, _CPP)
}
_BY_EXTENSION = {name: language.id for language in LANGUAGES.values() for name in language.extensions}
_BY_FILENAME = {name: language.id for language in LANGUAGES.values() for name in language.filenames}
_BY_INTERPRETER = {name: language.id for language in LANGUAGES.values() for name in language.interpreters}
_EMACS_MODE = re.compile(r"-\*-\s*(?:mode:\s*)?([\w+]+)\s*(?:;.*)?-\*-", re.IGNORECASE)
_VIM_MODE = re.compile(r"\bvim?:.*?\b(?:ft|filetype)=([\w+]+)")
_MODE_NAMES = {"c++": "cpp", "js": "javascript", "ts": "typescript", "typescriptreact": "tsx"}


def get(language_id: str | None) -> Language | None:
    """The language of that id, or None when it is unknown (its files are then handled without a tree)."""
    return LANGUAGES.get(language_id) if language_id else None


def detect(path: str | None, first_line: str = "") -> str | None:
    """The language id of a file by its editor mode line, its name, then its `#!` line; None when unknown."""
    mode = _EMACS_MODE.search(first_line[:1000]) or _VIM_MODE.search(first_line[:1000])
    if mode:
        name = _MODE_NAMES.get(mode[1].lower(), mode[1].lower())
        if name in LANGUAGES:
            return name
    filename = re.split(r"[/\\]", path or "")[-1]
    extension = os.path.splitext(filename)[1]
    for found in (
        _BY_FILENAME.get(filename),
        _BY_EXTENSION.get(extension),
        _BY_EXTENSION.get(extension.lower()),
    ):
        if found:
            return found
    shebang = re.match(r"\ufeff?#!\s*(\S+)(.*)", first_line)
    if not shebang:
        return None
    words = [shebang[1], *shebang[2].split()]
    if words[0].endswith("/env"):
        words = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
    if not words:
        return None
    interpreter = re.sub(r"[\d.]+$", "", words[0].rsplit("/", 1)[-1])
    return _BY_INTERPRETER.get(interpreter)


class Bracket(NamedTuple):
    """A bracket (`(`, `[`, `{`, `${` of a template, or a closer) and its offset in characters."""

    char: str
    offset: int


class Scan(NamedTuple):
    """What a left-to-right reading of brackets, strings and comments knows at its end, in character offsets.

    open: brackets still open, outermost first. inside: the opener of the string or comment that holds the
    end, or "". resume: where a later scan may start again, with `resume_open` as the brackets open there.
    stray: closers that closed nothing. skipped: openers passed over by a closer of another kind.
    unterminated: starts of one-line strings cut off by the line's end. multiline: spans of pairs and strings
    that hold a line end.
    """

    open: tuple[Bracket, ...]
    inside: str
    resume: int
    resume_open: tuple[Bracket, ...]
    stray: tuple[Bracket, ...]
    skipped: tuple[Bracket, ...]
    unterminated: tuple[int, ...]
    multiline: tuple[tuple[int, int], ...]


_BRACKET_CHARS = r"()\[\]{}"
_PYTHON_LINE_STARTS = (  # keywords that cannot begin a line within brackets: above them one was left open
    r"\n[ \t]*(?=(?:async[ ]+def|def|class|return|while|with|try|elif|except|finally|raise|pass|break"
    r"|continue|import|del|assert|global|nonlocal)\b)"
)
_PYTHON_LINE_START = re.compile(_PYTHON_LINE_STARTS)
_LANDMARKS = {
    "python": re.compile(rf"\"\"\"|'''|[\"'#{_BRACKET_CHARS}]|{_PYTHON_LINE_STARTS}"),
    "javascript": re.compile(rf"//|/\*|[/\"'`{_BRACKET_CHARS}]"),
    "go": re.compile(rf"//|/\*|[\"'`{_BRACKET_CHARS}]"),
    "rust": re.compile(rf"//|/\*|[\"'{_BRACKET_CHARS}]"),
    "java": re.compile(rf"\"\"\"|//|/\*|[\"'{_BRACKET_CHARS}]"),
    "c": re.compile(rf"//|/\*|[\"'{_BRACKET_CHARS}]"),
    "": re.compile(rf"[\"{_BRACKET_CHARS}]"),
}
_ONE_LINE_BODY = {
    quote: re.compile(rf"(?:[^{quote}\\\r\n]++|\\(?:\r\n|.))*+", re.DOTALL) for quote in ('"', "'")
}
_RUST_STRING_BODY = re.compile(r"(?:[^\"\\]++|\\.)*+", re.DOTALL)
_TRIPLE_BODY = {
    quote: re.compile(rf"(?:[^{quote[0]}\\]++|\\.|{quote[0]}(?!{quote[0]}{quote[0]}))*+", re.DOTALL)
    for quote in ('"""', "'''")
}
_TEMPLATE_BODY = re.compile(r"(?:[^`\\$]++|\\.|\$(?!\{))*+", re.DOTALL)
_RUST_CHAR = re.compile(r"'(?:\\(?:u\{[^}\n]*\}|x\w\w|.)|[^\\'\n])'")
_REGEX = re.compile(r"/(?:\\.|\[(?:\\.|[^\]\\\n])*+\]|[^/\\\[\n])++/[a-z]*")
_REGEX_AFTER_WORD = re.compile(r"(?:return|typeof|case|in|of|delete|void|throw|new|do|else|await|yield)$")
_CPP_RAW = re.compile(r'"([^()\\\s]{0,16})\(')


class _Scanner:
    def __init__(self, text: str, lexis: str, end: int, open_brackets: tuple[Bracket, ...]) -> None:
        self.text, self.lexis, self.end = text, lexis, end
        self.open = list(open_brackets)
        self.stray: list[Bracket] = []
        self.skipped: list[Bracket] = []
        self.unterminated: list[int] = []
        self.multiline: list[tuple[int, int]] = []

    def run(self, start: int) -> Scan:
        landmarks, position = _LANDMARKS[self.lexis], start
        while match := landmarks.search(self.text, position, self.end):
            open_before = tuple(self.open) if match[0] == "}" else ()
            inside, position = self._read(match[0], match.start())
            if inside:
                return self._result(inside, match.start(), open_before or tuple(self.open))
        if self.lexis == "python" and self.open:
            line_start = _PYTHON_LINE_START.match(self.text, max(0, self.text.rfind("\n", 0, self.end)))
            if line_start and self.end <= line_start.end():
                self._read("\n", self.end)
        return self._result("", self.end, tuple(self.open))

    def _result(self, inside: str, resume: int, resume_open: tuple[Bracket, ...]) -> Scan:
        return Scan(
            tuple(self.open),
            inside,
            resume,
            resume_open,
            tuple(self.stray),
            tuple(self.skipped),
            tuple(self.unterminated),
            tuple(self.multiline),
        )

    def _read(self, mark: str, at: int) -> tuple[str, int]:
        """The opener that is still open at the end (or ""), and where to read on."""
        if mark in CLOSERS:
            self.open.append(Bracket(mark, at))
        elif mark in OPENERS:
            if self._close(mark, at) == "${":
                return self._template(at, at + 1)
        elif mark in ("//", "#"):
            newline = self.text.find("\n", at, self.end)
            return (mark, self.end) if newline < 0 else ("", newline)
        elif mark == "/*":
            return self._until("*/", mark, at, at + 2)
        elif mark == "/":
            return self._regex(at)
        elif mark == "`":
            return self._until("`", mark, at, at + 1) if self.lexis == "go" else self._template(at, at + 1)
        elif mark[0] == "\n":
            self.skipped.extend(self.open)
            self.open.clear()
            return "", at + len(mark)
        else:
            return self._string(mark, at)
        return "", at + 1

    def _close(self, closer: str, at: int) -> str:
        wanted = OPENERS[closer]
        for depth in range(len(self.open) - 1, -1, -1):
            opener = self.open[depth]
            if opener.char in wanted:
                self.skipped.extend(self.open[depth + 1 :])
                del self.open[depth:]
                self._remember(opener.offset, at + 1)
                return opener.char
            if opener.char in ("{", "${") and self.lexis not in ("python", ""):
                break
        self.stray.append(Bracket(closer, at))
        return ""

    def _remember(self, start: int, end: int) -> None:
        if self.text.find("\n", start, end) >= 0:
            self.multiline.append((start, end))

    def _until(self, terminator: str, mark: str, at: int, body: int) -> tuple[str, int]:
        found = self.text.find(terminator, body, self.end)
        if found < 0:
            return mark, self.end
        self._remember(at, found + len(terminator))
        return "", found + len(terminator)

    def _template(self, at: int, body: int) -> tuple[str, int]:
        match = _TEMPLATE_BODY.match(self.text, body, self.end)
        stop = match.end() if match else body
        if stop >= self.end:
            return "`", self.end
        if self.text[stop] == "`":
            self._remember(at, stop + 1)
            return "", stop + 1
        if self.text.startswith("${", stop, self.end):
            self.open.append(Bracket("${", stop))
            return "", stop + 2
        return "`", self.end

    def _regex(self, at: int) -> tuple[str, int]:
        before = self.text[max(0, at - 200) : at].rstrip()
        starts_regex = not before or before[-1] in "([{,;:=!&|?+-*%~^" or before.endswith("=>")
        match = _REGEX.match(self.text, at, self.end)
        if match and (starts_regex or _REGEX_AFTER_WORD.search(before)):
            return "", match.end()
        return "", at + 1

    def _string(self, quote: str, at: int) -> tuple[str, int]:
        text, end = self.text, self.end
        if quote == "'" and self.lexis == "rust":
            literal = _RUST_CHAR.match(text, at, end)
            return "", literal.end() if literal else at + 1
        if quote == "'" and self.lexis == "c" and self._inside_number(at):
            return "", at + 1
        if quote == '"' and self.lexis == "rust":
            prefix = re.search(r"\b[bc]?r(#*)$", text[max(0, at - 20) : at])
            if prefix:
                return self._until('"' + prefix[1], quote, at, at + 1)
        if quote == '"' and self.lexis == "c" and text[max(0, at - 1) : at] == "R":
            raw = _CPP_RAW.match(text, at, end)
            if raw:
                return self._until(f'){raw[1]}"', quote, at, raw.end())
        if quote in _TRIPLE_BODY:
            body = _TRIPLE_BODY[quote]
        else:
            body = _RUST_STRING_BODY if self.lexis == "rust" else _ONE_LINE_BODY[quote]
        match = body.match(text, at + len(quote), end)
        stop = match.end() if match else at + len(quote)
        if text.startswith(quote, stop, end):
            self._remember(at, stop + len(quote))
            return "", stop + len(quote)
        if stop < end and text[stop] in "\r\n" and len(quote) == 1:
            if self.lexis:
                self.unterminated.append(at)
            return "", stop if self.lexis else at + 1
        return (quote, end) if self.lexis else ("", at + 1)

    def _inside_number(self, at: int) -> bool:
        start = at
        while max(0, at - 40) < start and (self.text[start - 1].isalnum() or self.text[start - 1] == "'"):
            start -= 1
        return self.text[start].isdigit() and self.text[at + 1 : at + 2].isalnum()


def scan(
    text: str,
    language_id: str | None,
    end: int | None = None,
    start: int = 0,
    open_brackets: tuple[Bracket, ...] = (),
) -> Scan:
    """Read text[start:end] for brackets, strings and comments, with `open_brackets` open at `start`.

    Needs no tree, so it also serves broken code. `start` must stand outside strings and comments: 0, or a
    `resume`. Of an unknown language only brackets and double quotes closed on their own line are read.
    """
    language = get(language_id)
    stop = len(text) if end is None else max(0, min(end, len(text)))
    return _Scanner(text, language.lexis if language else "", stop, open_brackets).run(start)
