"""A typist with a fake server, the figures of what it saw, and scenarios. No time is asserted."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from lsprotocol import types
from rich.console import Console

from bench.service import typist as module
from bench.service.keystrokes import figures, table_of
from bench.service.scenarios import Scenario, cut_file, read_scenarios
from bench.service.typist import Tally, Typist, _position
from engine.errors import InputError

TEXT = "first = 1\nvalue = compute(first)\nlast = 2\n"
REGION = (TEXT.index("value"), TEXT.index("\nlast"))


class FakeServer:
    """Suggests what `suggest` returns for the text left of the cursor on its line."""

    def __init__(self, suggest: Any) -> None:
        self.suggest, self.text, self.commands = suggest, "", list[str]()

    def text_document_did_open(self, params: types.DidOpenTextDocumentParams) -> None:
        self.text = params.text_document.text

    def text_document_did_close(self, params: types.DidCloseTextDocumentParams) -> None:
        pass

    def text_document_did_change(self, params: types.DidChangeTextDocumentParams) -> None:
        change = params.content_changes[0]
        assert isinstance(change, types.TextDocumentContentChangePartial)
        start, end = self._offset(change.range.start), self._offset(change.range.end)
        self.text = self.text[:start] + change.text + self.text[end:]

    async def text_document_inline_completion_async(
        self, params: types.InlineCompletionParams
    ) -> list[types.InlineCompletionItem]:
        at = self._offset(params.position)
        text = self.suggest(self.text[:at].rpartition("\n")[2])
        command = types.Command("accepted", "gesso.accepted", arguments=["7"])
        return [types.InlineCompletionItem(text, command=command)] if text else []

    async def workspace_execute_command_async(self, params: types.ExecuteCommandParams) -> list[dict[str, Any]]:
        self.commands.append(params.command)
        if params.command != "gesso.whyNothing":
            return []
        shown = [{"outcome": "shown", "origin": origin, "total_ms": 5.0} for origin in ("typed", "cache", "model")]
        refused = {"outcome": "nothing", "rule": "in a string"}
        return [{"at": 9.0 - number, **note} for number, note in enumerate([*shown, refused])]

    def _offset(self, position: types.Position) -> int:
        lines = self.text.splitlines(keepends=True)
        return sum(len(line) for line in lines[: position.line]) + position.character


@pytest.fixture(autouse=True)
def no_mistakes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MISTAKES", 0.0)


def played(suggest: Any, quiet: tuple[int, ...] = ()) -> tuple[Tally, FakeServer]:
    """The tally and the server after TEXT's region was typed without pauses or mistakes."""
    server, tally = FakeServer(suggest), Tally()
    typist = Typist(server, tally, seed=0, pace=0.0)  # type: ignore[arg-type]
    asyncio.run(typist.play(Scenario("a.py", "python", TEXT, (REGION,), quiet), 0))
    return tally, server


def test_a_right_suggestion_is_accepted_and_saves_its_characters() -> None:
    tally, server = played(lambda line: "compute(first)" if line == "value = " else "")
    assert tally.written == 22 and tally.keystrokes == 8 + 1 and "gesso.accepted" in server.commands
    assert (tally.accepted, tally.accepted_characters, tally.right) == (1, 14, 1)
    found = figures(tally, 1.0, 0.5, [40.0, 60.0])
    assert found["saved"] == pytest.approx(13 / 22) and found["with_suggestion"] == pytest.approx(1 / 9)
    assert found["right"] == 1.0 and found["answered"] == 1.0


def test_keys_near_the_end_of_the_line_need_no_suggestion() -> None:
    tally, _ = played(lambda line: "wrong" if len(line) >= 10 else "")
    assert tally.keystrokes == 22 and tally.due == 18  # the last four keys leave fewer than four characters
    assert tally.with_suggestion == 13 and tally.due_shown == 9 and tally.right == tally.accepted == 0


def test_a_suggestion_that_changes_while_it_is_typed_flickers() -> None:
    endings = {"v": "alue = other", "va": "lue = other", "val": "another"}
    tally, _ = played(lambda line: endings.get(line, ""))
    assert (tally.kept_on, tally.flickered) == (2, 1)


def test_quiet_offsets_and_notes_are_counted() -> None:
    tally, _ = played(
        lambda line: "x" if line == "las" else "", quiet=(TEXT.index("last") + 3, TEXT.index("first") + 2)
    )
    assert (tally.quiet_offsets, tally.quiet) == (2, 1)
    assert tally.rules == {"in a string": 1}
    assert figures(tally, 1.0, 0.0, [1.0, 2.0])["known"] == pytest.approx(2 / 3)


def test_a_baseline_without_a_figure_is_shown_with_a_dash() -> None:
    tally, _ = played(lambda line: "")
    found = {"model": "coder", **figures(tally, 1.0, 0.0, [1.0, 2.0])}
    older = {name: value for name, value in found.items() if name != "shown_where_due"}
    console = Console(width=160)
    with console.capture() as output:
        console.print(table_of(found, older))
    rows = [line for line in output.get().splitlines() if "characters to go" in line]
    assert len(rows) == 1 and "–" in rows[0] and "25 %" in rows[0]


def test_positions_count_utf_16_units() -> None:
    assert _position("ab\n𝛼x", 5) == types.Position(1, 3)


def test_a_scenario_is_cut_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "code.py"
    file.write_text("def f():\n" + "    value = call(other)\n" * 60)
    made = cut_file(file)
    assert made == cut_file(file) and made.language == "python" and len(made.typed) == 2 and len(made.quiet) == 12
    assert all(made.text[start:end].startswith("value") for start, end in made.typed)


def test_scenarios_are_read_and_a_folder_without_one_is_an_error(tmp_path: Path) -> None:
    assert all(one.typed and one.quiet for one in read_scenarios())
    with pytest.raises(InputError, match="--cut"):
        read_scenarios(tmp_path)
