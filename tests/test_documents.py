"""Documents name files, headings, commands and options that exist; every command shows how it is called."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from moedge_runtime.cli.main import moedge

ROOT = Path(__file__).parents[1]
FOLDERS = ("benchmarks", "devices", "docker", "docs", "examples", "export", "runtime", "tests")
PAGES = sorted([*ROOT.glob("*.md"), *(page for folder in FOLDERS for page in (ROOT / folder).rglob("*.md"))])
FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"(?<!`)`([^`]+)`")
SUDO = ["sudo", "-u"]
SEPARATORS = {"&&", "||", ";", "|", ">", ">>", "<", "2>&1"}


def anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub makes them."""
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6} (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading.lower())
        anchor = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        same = sum(re.fullmatch(rf"{re.escape(anchor)}(-\d+)?", other) is not None for other in found)
        found.add(f"{anchor}-{same}" if same else anchor)
    return found


def test_every_link_leads_to_a_file_and_a_heading() -> None:
    missing = []
    for page in PAGES:
        text = INLINE.sub("", FENCE.sub("", page.read_text()))
        for target in re.findall(r"\]\((?!https?:|mailto:)([^)\s]+)\)", text):
            name, _, anchor = target.partition("#")
            file = page.parent / name if name else page
            if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file)):
                missing.append(f"{page.relative_to(ROOT)}: {target}")
    assert len(PAGES) > 50 and missing == []


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command that is no group, with the words that name it."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield (*path, name), command


def fault_of(words: list[str]) -> str | None:
    """What is wrong with `moedge` and these arguments; values are not looked at."""
    command: click.Command = moedge
    try:
        while True:
            parser = command.make_parser(click.Context(command, info_name=" ".join(words[:1])))
            parser.ignore_unknown_options = False
            if not isinstance(command, click.Group):
                parser.parse_args(list(words))
                return None
            _, rest, _ = parser.parse_args(list(words))
            inner = command.get_command(click.Context(command), rest[0]) if rest else None
            if inner is None:
                return None if command.invoke_without_command or not rest else f"there is no command {rest[0]!r}"
            command, words = inner, rest[1:]
    except click.BadOptionUsage as error:  # an option that is only named: `moedge verify --against`
        return None if words[-1:] == [error.option_name] else error.format_message()
    except click.UsageError as error:
        return error.format_message()


def calls(text: str) -> Iterator[list[str]]:
    """Arguments of each `moedge` in some lines of shell."""
    for line in text.replace("\\\n", " ").splitlines():
        try:
            words = shlex.split(line.removeprefix("$ "), comments=True)
        except ValueError:  # an apostrophe in what a command prints
            continue
        for number, word in enumerate(words):
            begins = not number or words[number - 1] in SEPARATORS | {"sudo"} or words[number - 3 : number - 1] == SUDO
            if word != "moedge" or not begins:
                continue
            call = []
            for each in words[number + 1 :]:
                if each in SEPARATORS:
                    break
                call.append(each)
                if each.endswith(";"):
                    break
            yield call


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_on_a_page_exists_with_its_options(page: Path) -> None:
    text = page.read_text()
    blocks = [re.sub(r"\A```.*\n|```\Z", "", block) for block in FENCE.findall(text)]
    inline = [
        re.sub(r"[\[\]]", " ", code) for code in INLINE.findall(FENCE.sub("", text)) if re.match("moedge [a-z]", code)
    ]
    wrong = {" ".join(call): fault for each in [*blocks, *inline] for call in calls(each) if (fault := fault_of(call))}
    assert wrong == {}


def test_the_documents_call_moedge_often_enough_for_the_test_to_mean_something() -> None:
    found = sum(len(list(calls(block))) for page in PAGES for block in FENCE.findall(page.read_text()))
    assert found > 50
    assert fault_of(["ask", "b", "q", "--nosuch"]) and fault_of(["nosuch"]) and fault_of(["fleet", "nosuch"])


@pytest.mark.parametrize(
    ("path", "command"), commands(moedge), ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_the_help_of_every_command_shows_calls_that_exist(path: tuple[str, ...], command: click.Command) -> None:
    shown = list(calls(command.epilog or ""))
    assert shown and all(tuple(call[: len(path)]) == path for call in shown)
    assert [fault for call in shown if (fault := fault_of(call))] == []


def test_lists_of_commands_are_not_cut_in_a_terminal_of_eighty_columns() -> None:
    groups = {path[:-1] for path, _ in commands(moedge)}
    for path in groups:
        command: click.Command = moedge
        for name in path:
            assert isinstance(command, click.Group)
            command = command.get_command(click.Context(command), name) or command
        context = click.Context(command, info_name=" ".join(path), terminal_width=80)
        assert "..." not in command.get_help(context).partition("Commands:")[2], path
