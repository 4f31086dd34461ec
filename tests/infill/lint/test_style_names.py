"""Names against the file's convention: which are proposed, in which places, and which are left alone."""

import pytest

from infill.code.syntax import parse
from infill.findings import Range
from infill.lint.style_names import convention, rename_places, rewritten, unusual_names
from infill.lint.symbols import Survey

HABIT = """
def habit(first_name, last_name, other_value):
    total_count, next_item = first_name, last_name
    return total_count, next_item, other_value
"""
CAMELS = "function habit(firstName, lastName, otherValue) { let totalCount = firstName, nextItem = lastName; }\n"


def found(text: str, language: str = "python", elsewhere: frozenset[str] = frozenset()) -> dict[str, tuple[str, int]]:
    """By name what it would be, and in how many places."""
    tree = parse(text, language)
    assert tree is not None and not tree.root.has_error
    edits = unusual_names(tree, Survey(tree), elsewhere)
    return {text[one.edit.start : one.edit.end]: (one.edit.replacement, len(one.places)) for one in edits}


def renamed(text: str, places: list[Range], new: str) -> str:
    for start, end in sorted(places, reverse=True):
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
def test_there_and_back(name: str, other: str) -> None:
    assert (convention(name), convention(other)) == ("snake", "camel")
    assert rewritten(name, "camel") == other and rewritten(other, "snake") == name


@pytest.mark.parametrize("name", ["name", "Name", "NAME", "MAX_COUNT", "HTTPServer", "mixed_Name", "_", "__init__"])
def test_what_has_no_convention(name: str) -> None:
    assert convention(name) is None


def test_capitals_in_a_row_are_a_word() -> None:
    assert rewritten("parseURLNow", "snake") == "parse_url_now" and rewritten("rawHTML", "snake") == "raw_html"
    assert rewritten("glyphIDs", "snake") == "glyph_ids" and rewritten("userIDsOf", "snake") == "user_ids_of"


def test_a_variable_with_all_of_its_places() -> None:
    code = "    rowCount = len(rows)\n    rowCount += 1\n    return f'{rowCount}', [rowCount for _ in rows]\n"
    text = HABIT + "\ndef f(rows):\n" + code
    assert found(text) == {"rowCount": ("row_count", 4)}
    tree = parse(text, "python")
    assert tree is not None
    places = rename_places(tree, text.index("rowCount"), "row_count")
    assert places is not None and renamed(text, places, "row_count") == text.replace("rowCount", "row_count")


def test_the_other_way_round_and_other_languages() -> None:
    text = CAMELS + "function f(rows) { const row_count = rows.length; return row_count + 1; }\n"
    assert found(text, "javascript") == {"row_count": ("rowCount", 2)}
    go = (
        "package p\nfunc f(firstName int, lastName int, otherValue int) int {\n\ttotalCount := firstName\n"
        "\tnextItem := lastName\n\trow_count := totalCount\n\treturn row_count + nextItem + otherValue\n}\n"
    )
    assert found(go, "go") == {"row_count": ("rowCount", 2)}


def test_no_habit_no_finding() -> None:
    mixed = HABIT + "\ndef f(rows):\n    rowCount = len(rows)\n    colCount = rowCount\n    return colCount\n"
    assert found(mixed) == {}
    few = "def f(rows, first_name):\n    rowCount = len(rows)\n    return rowCount, first_name\n"
    assert found(few) == {}


@pytest.mark.parametrize(
    "code",
    [
        "def f(rows):\n    rowCount = len(rows)\n    return dict(rowCount=rowCount)\n",  # a keyword
        "def f(rows):\n    rowCount = rows.rowCount\n    return rowCount\n",  # a member
        "def f(rows):\n    rowCount = rows['rowCount']\n    return rowCount\n",  # a key
        "def f(rows):\n    rowCount = len(rows)  # rowCount as the API has it\n    return rowCount\n",  # said in words
        "def f(rows):\n    rowCount = len(rows)\n    return f'{rowCount=}'\n",  # printed
        "def f(rows):\n    rowCount = len(rows)\n    return '%(rowCount)s' % locals()\n",
        "def f(rows):\n    rowCount = len(rows)\n    return eval(rows), rowCount\n",
        "def f(rows):\n    global rowCount\n    rowCount = len(rows)\n",
        "from module import rowCount\n\ndef f(rows):\n    return rowCount\n",  # imported
        "rowCount = 1\n\ndef f(rows):\n    return rowCount\n",  # of the file
        "def f(rows):\n    rowCount = len(rows)\n    return rowCount\n\ndef g(rowCount):\n    return rowCount\n",
        "def f(rows):\n    rowCount = len(rows)\n    row_count = 1\n    return rowCount, row_count\n",  # taken
        "def f(rowCount):\n    return rowCount\n",  # a caller may name it
        "class A:\n    def _f(self, rowCount):\n        return rowCount\n",  # may be overriding
        "class A:\n    def rowCount(self):\n        return self.rowCount\n",  # a method
        "def rowCount(rows):\n    return rowCount(rows)\n",  # public
        "def f(rows):\n    class Row:\n        rowCount = 1\n    return Row\n",  # a field
        "def f(rows):\n    dX = rows\n    return dX\n",  # a formula
        "@decorated\ndef _f(rowCount):\n    return rowCount\n",
    ],
)
def test_what_something_else_may_know_is_left_alone(code: str) -> None:
    assert found(HABIT + "\n" + code) == {}


def test_parameters_and_functions_that_nobody_else_sees() -> None:
    inner = "\ndef f(rows):\n    def addRow(newRow):\n        return rows + newRow\n    return addRow\n"
    names = (
        "\ndef get_rows(): ...\ndef get_cells(): ...\ndef get_table(): ...\ndef put_rows(): ...\ndef put_table(): ...\n"
    )
    assert found(HABIT + names + inner) == {"newRow": ("new_row", 2), "addRow": ("add_row", 2)}
    private = "\ndef _addRow(rows):\n    return rows\n\n\nprint(_addRow([]))\n"
    assert found(HABIT + names + private) == {"_addRow": ("_add_row", 2)}
    assert found(HABIT + names + private, elsewhere=frozenset({"_addRow"})) == {}


def test_what_other_files_have_is_meant() -> None:
    text = HABIT + "\ndef f(rows):\n    rowCount = len(rows)\n    return rowCount\n"
    assert found(text, elsewhere=frozenset({"rowCount"})) == {}


def test_shorthands_are_names_of_fields_too() -> None:
    taken = CAMELS + "function f(rows) { const row_count = rows.length; return { row_count }; }\n"
    given = CAMELS + "function f(rows) { const { row_count } = rows; return row_count; }\n"
    assert found(taken, "javascript") == found(given, "javascript") == {}
    field = "class A { constructor(private row_count: number) { use(row_count); } }\n"
    assert found(CAMELS.replace("function", "function", 1) + field, "typescript") == {}
