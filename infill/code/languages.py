"""The supported languages: their file names, their grammars, and their node types for blocks, strings and comments.

To add a language, extend this table. Must not know texts, cursors, models or prompts. A grammar is loaded on first use;
a language without an installed grammar has no syntax tree.
"""

from __future__ import annotations

import importlib
import os.path
import re
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import tree_sitter  # a machine without it has no grammars


@dataclass(frozen=True)
class Language:
    """Node types are those of the tree-sitter grammar.

    lexis: which scanner reads brackets, strings and comments. scopes: node type to kind of scope. statements: node
    types that are statements besides those that end in `_statement`.
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
    indentation_sensitive: bool = False

    def is_statement(self, node_type: str) -> bool:
        return node_type.endswith("_statement") or node_type in self.statements

    def grammar(self) -> tree_sitter.Language | None:
        """None if the package with the grammar is not installed."""
        return _load_grammar(self.grammar_module, self.grammar_function)


@cache
def _load_grammar(module: str, function: str) -> tree_sitter.Language | None:
    try:
        import tree_sitter

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
    indentation_sensitive=True,
    statements=_set("function_definition class_definition decorated_definition"),
    blocks=_set("block"),
    scopes={"function_definition": "function", "class_definition": "class"},
    imports=_set("import_statement import_from_statement future_import_statement"),
    strings=_set("string"),
    comments=_set("comment"),
)

_JAVASCRIPT_STATEMENTS = _set(
    "variable_declaration lexical_declaration function_declaration generator_function_declaration class_declaration"
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
    blocks=_set("block class_body interface_body enum_body constructor_body switch_block annotation_type_body"),
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
    language.id: language for language in (_PYTHON, _JAVASCRIPT, _TYPESCRIPT, _TSX, _GO, _RUST, _JAVA, _C, _CPP)
}
_BY_EXTENSION = {name: language.id for language in LANGUAGES.values() for name in language.extensions}
_BY_FILENAME = {name: language.id for language in LANGUAGES.values() for name in language.filenames}
_BY_INTERPRETER = {name: language.id for language in LANGUAGES.values() for name in language.interpreters}
_EMACS_MODE = re.compile(r"-\*-\s*(?:mode:\s*)?([\w+]+)\s*(?:;.*)?-\*-", re.IGNORECASE)
_VIM_MODE = re.compile(r"\bvim?:.*?\b(?:ft|filetype)=([\w+]+)")
_MODE_NAMES = {"c++": "cpp", "js": "javascript", "ts": "typescript", "typescriptreact": "tsx"}


def get(language_id: str | None) -> Language | None:
    """The language with this id; None if there is none, so that its files are handled without a tree."""
    return LANGUAGES.get(language_id) if language_id else None


def detect(path: str | None, first_line: str = "") -> str | None:
    """The language id by the editor mode line, else by the file name, else by the `#!` line; None if unknown."""
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
