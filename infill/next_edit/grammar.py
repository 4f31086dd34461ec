"""Tables of node types and fields: what binds a name, what opens a scope, and how calls and classes are written.

To add a language, add a table. An edge is (type of the parent, field of the child or None), in the terms of the
tree-sitter grammar.
"""

from __future__ import annotations

import builtins
import keyword
from dataclasses import dataclass, field
from typing import Literal

Edge = tuple[str, str | None]
Binds = Literal["block", "function", "own", "comprehension"]


@dataclass(frozen=True)
class Grammar:
    """names: identifiers that may be variables. binds: edges that bind, and the scope that they bind in: the nearest
    block or function above the parent, the parent itself, or the comprehension around it. patterns: edges within the
    target of a binding. members: edges to the name of a member. labels: edges to names that are neither variables nor
    members, such as keywords of calls. hidden: scopes whose names nested functions do not see. outside: edges of a
    scope whose code is evaluated around it.

    receivers: names of the object that a method is called on. constructors: names of methods that make an object.
    known: names defined by the language, and names of members that objects of many kinds have.
    """

    names: frozenset[str]
    binds: dict[Edge, Binds] = field(hash=False)
    patterns: frozenset[Edge]
    members: frozenset[Edge]
    labels: frozenset[Edge]
    blocks: frozenset[str]
    functions: frozenset[str]
    comprehensions: frozenset[str] = frozenset()
    classes: frozenset[str] = frozenset()
    hidden: frozenset[str] = frozenset()
    outside: frozenset[Edge] = frozenset()
    definitions: frozenset[str] = frozenset()
    calls: frozenset[str] = frozenset()
    objects: tuple[str, ...] = ("object", "operand")
    receivers: frozenset[str] = frozenset()
    constructors: frozenset[str] = frozenset()
    field_types: frozenset[str] = frozenset()
    statement_end: str = ""
    keywords: frozenset[str] = frozenset()
    known: frozenset[str] = frozenset()


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


def _edges(words: str) -> frozenset[Edge]:
    """`type.field`, or `type.` for a child without a field."""
    pairs = (word.partition(".") for word in words.split())
    return frozenset((parent, name or None) for parent, _, name in pairs)


def _binds(**words: str) -> dict[Edge, Binds]:
    kinds: dict[str, Binds] = {name: name for name in ("block", "function", "own", "comprehension")}
    return {edge: kinds[kind] for kind, edges in words.items() for edge in _edges(edges)}


PYTHON = Grammar(
    names=_set("identifier"),
    binds=_binds(
        block=(
            "assignment.left augmented_assignment.left for_statement.left named_expression.name as_pattern.alias "
            "default_parameter.name typed_default_parameter.name typed_parameter. parameters. lambda_parameters. "
            "function_definition.name class_definition.name import_statement.name import_from_statement.name "
            "aliased_import.alias case_pattern. type_alias_statement.left"
        ),
        comprehension="for_in_clause.left",
    ),
    patterns=_edges(
        "pattern_list. tuple_pattern. list_pattern. tuple. list_splat_pattern. dictionary_splat_pattern. "
        "as_pattern_target. dotted_name."
    ),
    members=_edges("attribute.attribute"),
    labels=_edges("keyword_argument.name"),
    blocks=_set("module function_definition lambda class_definition"),
    functions=_set("function_definition lambda"),
    comprehensions=_set("list_comprehension set_comprehension dictionary_comprehension generator_expression"),
    classes=_set("class_definition"),
    hidden=_set("class_definition"),
    outside=_edges(
        "function_definition.parameters function_definition.return_type lambda.parameters class_definition.superclasses"
    ),
    definitions=_set("function_definition"),
    calls=_set("call"),
    receivers=_set("self cls"),
    constructors=_set("__init__ __new__"),
    keywords=frozenset(keyword.kwlist),
    known=frozenset(dir(builtins))
    | frozenset(name for kind in (str, bytes, list, dict, set, tuple, int, object) for name in dir(kind))
    | _set("close open read write seek flush group match search sub send run start stop result data name value path"),
)

_JAVASCRIPT_BLOCKS = _set(
    "program statement_block for_statement for_in_statement catch_clause switch_body function_declaration "
    "function_expression arrow_function method_definition generator_function generator_function_declaration "
    "class_static_block class_declaration class abstract_class_declaration interface_declaration "
    "type_alias_declaration"
)
_JAVASCRIPT_FUNCTIONS = _set(
    "function_declaration function_expression arrow_function method_definition generator_function "
    "generator_function_declaration"
)
JAVASCRIPT = Grammar(
    names=_set("identifier type_identifier shorthand_property_identifier shorthand_property_identifier_pattern"),
    binds=_binds(
        block=(
            "variable_declarator.name formal_parameters. required_parameter.pattern optional_parameter.pattern "
            "arrow_function.parameter function_declaration.name generator_function_declaration.name "
            "class_declaration.name abstract_class_declaration.name interface_declaration.name "
            "type_alias_declaration.name enum_declaration.name import_specifier.name import_specifier.alias "
            "import_clause. namespace_import. type_parameter.name"
        ),
        own="catch_clause.parameter for_in_statement.left function_expression.name class.name",
    ),
    patterns=_edges(
        "object_pattern. array_pattern. pair_pattern.value rest_pattern. assignment_pattern.left "
        "object_assignment_pattern.left"
    ),
    members=_edges("member_expression.property"),
    labels=_edges("labeled_statement.label export_specifier.alias jsx_attribute."),
    blocks=_JAVASCRIPT_BLOCKS,
    functions=_JAVASCRIPT_FUNCTIONS,
    classes=_set("class_declaration class abstract_class_declaration"),
    definitions=_set("function_declaration method_definition generator_function_declaration"),
    calls=_set("call_expression new_expression"),
    receivers=_set("this"),
    constructors=_set("constructor"),
    field_types=_set("field_definition public_field_definition"),
    statement_end=";",
    keywords=_set(
        "await break case catch class const continue default delete do else enum export extends false finally for "
        "function if import in instanceof let new null return static super switch this throw true try typeof var void "
        "while with yield"
    ),
    known=_set(
        "any async boolean constructor from get number object of set string undefined unknown length push pop map "
        "filter reduce forEach slice splice join split replace concat indexOf includes find keys values entries "
        "toString valueOf then catch call apply bind name value data add has clear size on once emit close open read "
        "write send start stop run next"
    ),
)

GO = Grammar(
    names=_set("identifier type_identifier"),
    binds=_binds(
        block=(
            "short_var_declaration.left var_spec.name const_spec.name parameter_declaration.name "
            "variadic_parameter_declaration.name range_clause.left function_declaration.name type_spec.name "
            "type_alias.name receive_statement.left type_parameter_declaration.name"
        ),
        own="type_switch_statement.alias",
    ),
    patterns=_edges("expression_list."),
    members=_edges("selector_expression.field"),
    labels=_edges("keyed_element.key"),
    blocks=_set(
        "source_file function_declaration method_declaration func_literal block if_statement for_statement "
        "expression_switch_statement type_switch_statement select_statement expression_case default_case type_case "
        "communication_case"
    ),
    functions=_set("function_declaration method_declaration func_literal"),
    definitions=_set("function_declaration method_declaration"),
    calls=_set("call_expression"),
    keywords=_set(
        "break case chan const continue default defer else fallthrough for func go goto if import interface map "
        "package range return select struct switch type var"
    ),
    known=_set(
        "append bool byte cap close complex copy delete error "
        "false float32 float64 imag int int8 int16 int32 int64 iota len make new nil panic print println real recover "
        "rune string true uint uint8 uint16 uint32 uint64 uintptr any min max clear Error String Close Read Write Len "
        "Name Value Next Get Set Add Done Wait Lock Unlock Run Start Stop"
    ),
)

GRAMMARS = {"python": PYTHON, "javascript": JAVASCRIPT, "typescript": JAVASCRIPT, "tsx": JAVASCRIPT, "go": GO}
