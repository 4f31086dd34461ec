"""The project's Markdown: links and anchors resolve; commands, options, modules and files that it names exist."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main
from typer.core import TyperGroup

from infill.cli.main import app

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^( *)```.*?^\1```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)
COMMAND = re.compile(r"(?:^|[|$] )gesso ((?:[a-z]+ ?)*)([^|\n]*)", re.MULTILINE)
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
MODULE = re.compile(r"python -m ([a-z_.]+)")
FILE = re.compile(r"(?:engine|infill|lsp|train|bench|tests|docs|editors|scripts)/[\w./-]*\Z")
# bench and train keep notes on what was tried, with names that were true then
GUIDES = ("README.md", "CONTRIBUTING.md", "docs/", "editors/")


def markdown_files() -> list[str]:
    """All Markdown files of the project, relative to its root."""
    found = []
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if not name.startswith(".") and name != "node_modules"]
        found += [(Path(folder) / name).relative_to(ROOT).as_posix() for name in files if name.endswith(".md")]
    return sorted(found)


ALL = markdown_files()
GUIDE_PAGES = [name for name in ALL if name.startswith(GUIDES)] + ["editors/nvim/doc/gesso.txt"]


def read(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def anchors(name: str) -> set[str]:
    """The anchors of a page's headings, formed as GitHub forms them."""
    found: set[str] = set()
    for heading in HEADING.findall(FENCE.sub("", read(name))):
        text = LINK.sub(lambda link: link[0][1 : link[0].index("]")], heading).replace("`", "")
        slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        count = sum(slug == one or re.fullmatch(rf"{re.escape(slug)}-\d+", one) is not None for one in found)
        found.add(f"{slug}-{count}" if count else slug)
    return found


def code(name: str) -> Iterator[str]:
    """Every fenced block and every code span of a page."""
    text = read(name)
    yield from (block[0] for block in FENCE.finditer(text))
    yield from SPAN.findall(FENCE.sub("", text))


def commands() -> dict[str, set[str]]:
    """The options of `gesso` and of each of its commands, by the words of the command."""
    found: dict[str, set[str]] = {}

    def visit(words: str, command: typer.core.click.Command) -> None:
        with command.make_context(words, [], resilient_parsing=True) as context:
            shown = [one for one in command.get_params(context) if not getattr(one, "hidden", False)]
            found[words] = {option for one in shown for option in (*one.opts, *one.secondary_opts)}
        if isinstance(command, TyperGroup):
            for name, below in command.commands.items():
                visit(f"{words} {name}".strip(), below)

    visit("", typer.main.get_command(app))
    return found


COMMANDS = commands()


@pytest.mark.parametrize("name", ALL)
def test_links_and_anchors_resolve(name):
    wrong = []
    for target in LINK.findall(SPAN.sub("", FENCE.sub("", read(name)))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / name).parent / path if path else ROOT / name
        if not file.exists():
            wrong.append(target)
        elif anchor and anchor not in anchors(os.path.relpath(file, ROOT)):
            wrong.append(target)
    assert not wrong


@pytest.mark.parametrize("name", GUIDE_PAGES)
def test_commands_and_their_options_exist(name):
    wrong = []
    for written in code(name):
        for words, rest in COMMAND.findall(written):
            known = [" ".join(words.split()[:count]) for count in (2, 1) if words.split()[:count]]
            command = next((one for one in known if one in COMMANDS), "")
            if words and not command:
                wrong.append(f"gesso {words}")
            wrong += [f"gesso {command} {option}" for option in OPTION.findall(rest) if option not in COMMANDS[command]]
    assert not wrong


@pytest.mark.parametrize("name", ["docs/command-line.md", "docs/lint.md", "docs/service.md", "docs/settings.md"])
def test_options_in_tables_exist(name):
    known = set().union(*COMMANDS.values())
    spans = SPAN.findall(FENCE.sub("", read(name)))
    options = {option for span in spans if span.startswith("--") for option in OPTION.findall(span)}
    assert options - known == set()


def test_every_command_and_option_is_documented():
    text = read("docs/command-line.md") + read("docs/service.md") + read("docs/language-server.md")
    options = {option for one in COMMANDS.values() for option in one if option.startswith("--")} - {"--help"}
    assert {words for words in COMMANDS if f"gesso {words}" not in text} == set()
    assert {option for option in options if option not in text} == set()


@pytest.mark.parametrize("name", GUIDE_PAGES)
def test_modules_and_files_exist(name):
    modules = {module.replace(".", "/") for written in code(name) for module in MODULE.findall(written)}
    files = {written for written in code(name) if FILE.match(written)}
    programs = {module for module in modules if not (ROOT / f"{module}.py").exists()}
    assert {program for program in programs if not (ROOT / program / "__main__.py").exists()} == set()
    assert {file for file in files if not (ROOT / file).exists()} == set()
