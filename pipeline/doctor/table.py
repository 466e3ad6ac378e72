"""The doctor's findings for people: a table for each machine, and below it each trouble with its cure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from pipeline.doctor.check import Check, Examination, Level

_MARKS: dict[Level, tuple[str, str]] = {
    "ok": ("ok", "green"),
    "warning": ("slow", "yellow"),
    "problem": ("wrong", "bold red"),
}


def print_examination(examination: Examination, console: Console | None = None) -> None:
    console = console or Console(highlight=False)
    for name, checks in examination.machines.items():
        console.print(_section(name, checks), soft_wrap=not console.is_terminal)
    if examination.job:
        console.print(_section("the job's data", examination.job), soft_wrap=not console.is_terminal)
    console.print(_verdict(examination))


def _section(title: str, checks: list[Check]) -> RenderableType:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in checks:
        mark, style = _MARKS[check.level]
        table.add_row(Text(mark, style), check.subject, Text(check.found))
    return Group(table, *_troubles(checks), Text())


def _troubles(checks: Iterable[Check]) -> Iterator[Text]:
    for check in checks:
        if check.trouble:
            yield Text(f"  {check.subject}: {check.trouble}", _MARKS[check.level][1])
        if check.cure:
            yield Text(f"    {check.cure}")


def _verdict(examination: Examination) -> Text:
    wrong = sum(check.level == "problem" for check in examination.checks)
    slow = sum(check.level == "warning" for check in examination.checks)
    if wrong:
        return Text(f"{wrong} thing{'s' if wrong > 1 else ''} would end a job here", "bold red")
    if slow:
        return Text(f"a job can run; {slow} thing{'s' if slow > 1 else ''} would make it slower", "yellow")
    return Text("a job can run", "green")
