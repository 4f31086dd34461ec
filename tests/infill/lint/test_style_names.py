"""Names that break the convention of the file: which are renamed, in which positions, and which are not."""

import pytest

from infill.code.syntax import parse
from infill.findings import Range
from infill.lint.style_names import convention, convert, rename_places, unusual_names
from infill.lint.symbols import SymbolTable

SNAKE_FILE = """
def habit(first_name, last_name, other_value):
    total_count, next_item = first_name, last_name
    return total_count, next_item, other_value
"""
CAMEL_FILE = "function habit(firstName, lastName, otherValue) { let totalCount = firstName, nextItem = lastName; }\n"


def found(
    text: str, language: str = "python", neighbour_names: frozenset[str] = frozenset()
) -> dict[str, tuple[str, int]]:
    """By name: the new name, and in how many positions."""
    tree = parse(text, language)
    assert tree is not None and not tree.root.has_error
    edits = unusual_names(tree, SymbolTable(tree), neighbour_names)
    return {text[one.edit.start : one.edit.end]: (one.edit.replacement, len(one.ranges)) for one in edits}


def renamed(text: str, ranges: list[Range], new: str) -> str:
    for start, end in sorted(ranges, reverse=True):
        text = text[:start] + new + text[end:]
    return text


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("user_name", "userName"),
        ("_user_name", "_userName"),
        ("parse_url_now", "parseUrlNow"),
        ("n_samples", "nSamples"),
    ],
)
def test_names_convert_in_both_directions(name: str, other: str) -> None:
    assert (convention(name), convention(other)) == ("snake", "camel")
    assert convert(name, "camel") == other and convert(other, "snake") == name


@pytest.mark.parametrize("name", ["name", "Name", "NAME", "MAX_COUNT", "HTTPServer", "mixed_Name", "_", "__init__"])
def test_other_names_have_no_convention(name: str) -> None:
    assert convention(name) is None


def test_adjacent_capitals_are_one_word() -> None:
    assert convert("parseURLNow", "snake") == "parse_url_now" and convert("rawHTML", "snake") == "raw_html"
    assert convert("glyphIDs", "snake") == "glyph_ids" and convert("userIDsOf", "snake") == "user_ids_of"


def test_a_variable_is_renamed_everywhere() -> None:
    code = "    rowCount = len(rows)\n    rowCount += 1\n    return f'{rowCount}', [rowCount for _ in rows]\n"
    text = SNAKE_FILE + "\ndef f(rows):\n" + code
    assert found(text) == {"rowCount": ("row_count", 4)}
    tree = parse(text, "python")
    assert tree is not None
    ranges = rename_places(tree, text.index("rowCount"), "row_count")
    assert ranges is not None and renamed(text, ranges, "row_count") == text.replace("rowCount", "row_count")


def test_camel_case_files_and_other_languages() -> None:
    text = CAMEL_FILE + "function f(rows) { const row_count = rows.length; return row_count + 1; }\n"
    assert found(text, "javascript") == {"row_count": ("rowCount", 2)}
    go = (
        "package p\nfunc f(firstName int, lastName int, otherValue int) int {\n\ttotalCount := firstName\n"
        "\tnextItem := lastName\n\trow_count := totalCount\n\treturn row_count + nextItem + otherValue\n}\n"
    )
    assert found(go, "go") == {"row_count": ("rowCount", 2)}


def test_files_without_a_convention_have_no_findings() -> None:
    mixed = SNAKE_FILE + "\ndef f(rows):\n    rowCount = len(rows)\n    colCount = rowCount\n    return colCount\n"
    assert found(mixed) == {}
    few = "def f(rows, first_name):\n    rowCount = len(rows)\n    return rowCount, first_name\n"
    assert found(few) == {}


@pytest.mark.parametrize(
    "code",
    [
        "def f(rows):\n    rowCount = len(rows)\n    return dict(rowCount=rowCount)\n",  # a keyword
        "def f(rows):\n    rowCount = rows.rowCount\n    return rowCount\n",  # a member
        "def f(rows):\n    rowCount = rows['rowCount']\n    return rowCount\n",  # a key
        "def f(rows):\n    rowCount = len(rows)  # rowCount as the API has it\n    return rowCount\n",  # in a comment
        "def f(rows):\n    rowCount = len(rows)\n    return f'{rowCount=}'\n",  # printed
        "def f(rows):\n    rowCount = len(rows)\n    return '%(rowCount)s' % locals()\n",
        "def f(rows):\n    rowCount = len(rows)\n    return eval(rows), rowCount\n",
        "def f(rows):\n    global rowCount\n    rowCount = len(rows)\n",
        "from module import rowCount\n\ndef f(rows):\n    return rowCount\n",  # imported
        "rowCount = 1\n\ndef f(rows):\n    return rowCount\n",  # global
        "def f(rows):\n    rowCount = len(rows)\n    return rowCount\n\ndef g(rowCount):\n    return rowCount\n",
        "def f(rows):\n    rowCount = len(rows)\n    row_count = 1\n    return rowCount, row_count\n",  # new name used
        "def f(rowCount):\n    return rowCount\n",  # a caller may pass it by name
        "class A:\n    def _f(self, rowCount):\n        return rowCount\n",  # may override
        "class A:\n    def rowCount(self):\n        return self.rowCount\n",  # a method
        "def rowCount(rows):\n    return rowCount(rows)\n",  # public
        "def f(rows):\n    class Row:\n        rowCount = 1\n    return Row\n",  # a field
        "def f(rows):\n    dX = rows\n    return dX\n",  # a formula
        "@decorated\ndef _f(rowCount):\n    return rowCount\n",
    ],
)
def test_names_that_other_code_may_see_are_kept(code: str) -> None:
    assert found(SNAKE_FILE + "\n" + code) == {}


def test_private_parameters_and_functions_are_renamed() -> None:
    inner = "\ndef f(rows):\n    def addRow(newRow):\n        return rows + newRow\n    return addRow\n"
    names = (
        "\ndef get_rows(): ...\ndef get_cells(): ...\ndef get_table(): ...\ndef put_rows(): ...\ndef put_table(): ...\n"
    )
    assert found(SNAKE_FILE + names + inner) == {"newRow": ("new_row", 2), "addRow": ("add_row", 2)}
    private = "\ndef _addRow(rows):\n    return rows\n\n\nprint(_addRow([]))\n"
    assert found(SNAKE_FILE + names + private) == {"_addRow": ("_add_row", 2)}
    assert found(SNAKE_FILE + names + private, neighbour_names=frozenset({"_addRow"})) == {}


def test_names_of_other_files_are_kept() -> None:
    text = SNAKE_FILE + "\ndef f(rows):\n    rowCount = len(rows)\n    return rowCount\n"
    assert found(text, neighbour_names=frozenset({"rowCount"})) == {}


def test_shorthand_properties_are_kept() -> None:
    taken = CAMEL_FILE + "function f(rows) { const row_count = rows.length; return { row_count }; }\n"
    given = CAMEL_FILE + "function f(rows) { const { row_count } = rows; return row_count; }\n"
    assert found(taken, "javascript") == found(given, "javascript") == {}
    field = "class A { constructor(private row_count: number) { use(row_count); } }\n"
    assert found(CAMEL_FILE.replace("function", "function", 1) + field, "typescript") == {}
