"""Drafts copied from the context. «|» marks the hole."""

from hypothesis import given
from hypothesis import strategies as st

from infill.complete.copy_draft import CopyDraft, copy_drafts
from tests.cpu_time import takes_less


def copies(marked, *neighbours, one_line=True, limit=4, language="python"):
    before, after = marked.split("|")
    return copy_drafts(before, after, language, neighbours, limit, one_line)


def texts(*arguments, **options):
    return [draft.text for draft in copies(*arguments, **options)]


def test_the_rest_of_a_line_that_begins_the_same_way():
    source = "assert client.get(url).status == 200\nx = 1\n"
    assert texts(source + "assert client.get(|\n") == ["url).status == 200"]


def test_matches_below_the_hole_and_in_neighbours_count():
    assert texts("total = compute(|\n\ny = total = compute(a)\n") == ["a)"]
    assert texts("total = compute(|\n", "subtotal = 1\n    total = compute(b)\n") == ["b)"]


def test_a_short_match_does_not_count_unless_the_line_above_matches():
    assert texts("zz = f(1)\nx = f(|\n") == []
    assert texts("begin(a)\nx = f(1)\n\n    begin(a)\n    x = f(|\n") == ["1)"]
    assert texts("begin(b)\nx = f(1)\n\n    begin(a)\n    x = f(|\n") == []


def test_a_match_begins_at_a_token():
    line = "abcdefghijklm = 1\n"
    assert texts(line + "Xabcdefghijklm| = 2\n") == []
    assert texts(line + "abcdefghijklm|\n") == [" = 1"]


def test_the_longer_match_comes_first_and_agreement_before_it():
    source = "one()\nvalue = lookup(near)\ntwo()\nvalue = lookup(far)\nend()\n"
    found = copies(source + "two()\nvalue = lookup(|\n")
    assert [draft.text for draft in found] == ["far)", "near)"]
    assert found[0].match_length > found[1].match_length
    agreeing = copies(source + "one()\nvalue = lookup(|\nend()\n")
    assert agreeing[0] == CopyDraft("far)", len("value = lookup("), True)


def test_the_rest_of_the_line_is_not_copied():
    source = "a = combine(x, (y, ')'))\n"
    assert copies(source + "b = a = combine(|)\n") == [CopyDraft("x, (y, ')')", 12, True)]
    assert texts("a = combine(x) + 1\nb; a = combine(|)\n") == ["x"]


def test_the_next_line_after_the_same_line_above_takes_the_indentation_of_the_hole():
    source = "def a():\n    client = make_client()\n    assert client.ok\n"
    deeper = "class B:\n    def b(self):\n        client = make_client()\n"
    assert texts(source + deeper + "        |\n") == ["assert client.ok"]
    assert texts(source + "if x:\n  client = make_client()\n|\n") == ["  assert client.ok"]
    assert texts(source + "client = make_client()\n    |\n") == []


def test_a_hole_between_whole_lines_gets_whole_lines():
    source = "client = make_client()\nclient.open()\nclient.close()\n\n"
    hole = "client = make_client()\n|y = 1\n"
    assert texts(source + hole) == ["client.open()\n"]
    assert texts(source + hole, one_line=False) == ["client.open()\nclient.close()\n"]
    assert texts(source + "client = make_client()\n|client.open()\n") == []


def test_a_block_ends_with_its_indentation():
    source = "def handle(self, x):\n    if x:\n\n        a()\n    b()\n\ndef other():\n    pass\n"
    assert texts(source + "class C:\n  def handle(self, x|\n", one_line=False) == [
        "):\n      if x:\n\n          a()\n      b()"
    ]


def test_a_block_ends_before_the_next_line_of_the_file():
    source = "begin_transaction()\none()\ntwo()\nthree()\n"
    (found, *_) = copies(source + "if x:\n    begin_transaction()\n    |\n    two()\n", one_line=False)
    assert found == CopyDraft("one()", len("begin_transaction()"), True)


def test_carriage_returns_are_not_copied():
    source = "value = lookup(near)\r\nvalue = lookup(|\r\n"
    assert texts(source) == ["near)"]


def test_drafts_are_distinct_and_limited():
    source = "".join(f"value = lookup({n % 3})\nother = {n}\n" for n in range(12))
    assert len(texts(source + "value = lookup(|\n", limit=9)) == 3
    assert len(texts(source + "value = lookup(|\n", limit=2)) == 2
    assert texts(source + "value = lookup(|\n", limit=0) == []


TEXTS = st.text(st.sampled_from("ab(\n\t )é😀\ud800\r:"), max_size=80)


@given(TEXTS, TEXTS, TEXTS, st.booleans(), st.sampled_from(["python", "c", None]))
def test_every_draft_of_any_text_is_a_copy(before, after, neighbour, one_line, language):
    for draft in copy_drafts(before, after, language, [neighbour], 5, one_line):
        assert draft.text.strip()
        assert "\r\n" not in draft.text
        source = (before + "\n" + after + "\n" + neighbour).replace("\r\n", "\n")
        assert all(line.strip() in source for line in draft.text.split("\n"))
        if one_line:
            assert "\n" not in draft.text.removesuffix("\n")


def test_five_thousand_lines_are_searched_quickly():
    lines = "".join(f"    self.assertEqual(result[{n}], {n})\n    x\n" for n in range(2500))
    endings = ("    self.assertEqual(", "    ", "    x\n    se", "    unknown_thing_here(")

    def search(attempt):
        for ending in endings:
            copy_drafts(lines + f"{attempt}\n{ending}", "\n" + lines, "python", [lines], 4, False)

    assert takes_less(0.1 * len(endings), search)


def test_a_draft_counts_its_occurrences() -> None:
    source = "value = lookup(near)\n" + 2 * "value = lookup(far)\n"
    found = {draft.text: draft.occurrences for draft in copies(source + "value = lookup(|\n")}
    assert found == {"far)": 2, "near)": 1}
