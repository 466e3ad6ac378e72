"""OUT/report.html: one page that shows what a job did, for people who have to decide whether to trust it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FunctionLoader, StrictUndefined

from pipeline import __version__
from pipeline.errors import ConfigError
from pipeline.files.storage import Storage
from pipeline.output.committed import CommittedRows
from pipeline.output.records import REPORT, WORK
from pipeline.plan.held import held_at
from pipeline.report.asked import Place, asked
from pipeline.report.forecast_text import held_rows
from pipeline.report.formats import moment
from pipeline.report.progress import span
from pipeline.report.row_batch import RowBatch
from pipeline.report.sections import sections
from pipeline.report.status import Status, status
from pipeline.report.survey import Survey, columns_to_read
from pipeline.tally import Tally

_ROWS = 1024

Tell = Callable[[int, int], None]


def write_report(
    output_url: str, html: str | None = None, gold: str | None = None, tell: Tell = lambda done, rows: None
) -> str:
    """Writes the report of the job in an output, finished or not; the file's path or URL.

    html: where to; by default report.html in the output. gold: the kept column that holds the right labels.
    tell: called with the rows read so far, and all rows. Raises OutputError where no job has begun or an
    answer is damaged, ConfigError where there is no such column or no matplotlib.
    """
    answers = CommittedRows.at(output_url)
    kept = list(answers.record.get("record", {}).get("output", {}).get("keep", []))
    _check_gold(gold, kept)
    survey = _survey(answers, Survey(kept, gold), tell)
    page = render("report.html", _context(answers, survey, status(output_url)))
    return write_page(page, html or f"{output_url.rstrip('/')}/{REPORT}")


def render(template: str, context: Mapping[str, Any]) -> str:
    """A page by its template; texts are escaped."""
    folder = files("pipeline.report") / "templates"
    loader = FunctionLoader(lambda name: (folder / name).read_text(encoding="utf-8"))
    pages = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return pages.get_template(template).render(context, version=__version__, made=moment(time.time()))


def write_page(page: str, target: str) -> str:
    """Writes a page in one step; its path or URL. Raises ConfigError where that is no file's."""
    if not target.rpartition("/")[2] or ("://" not in target and Path(target).is_dir()):
        raise ConfigError(f"--html {target!r}: expected a file's path or URL")
    folder, name = Storage.around(target if "://" in target else str(Path(target).absolute()))
    folder.replace(name, page.encode("utf-8", "replace"))
    folder.remove_empty(WORK)
    return target


def _check_gold(gold: str | None, kept: list[str]) -> None:
    if gold is not None and gold not in kept:
        has = f"those that it kept from the input are {', '.join(kept)}" if kept else "it kept none"
        raise ConfigError(
            f"--gold {gold}: the output has no such column of the input; {has}. "
            "output.keep in the job file names the columns to carry along"
        )


def _survey(answers: CommittedRows, survey: Survey, tell: Tell) -> Survey:
    for shard in sorted(answers.shards):
        for start, table in answers.tables(shard, columns_to_read, _ROWS):
            survey.add(RowBatch(shard, start, table))
            tell(survey.tally.rows, answers.rows)
    return survey


def _context(answers: CommittedRows, survey: Survey, state: Status) -> dict[str, Any]:
    about = answers.record.get("about") or {}
    missing = answers.rows - survey.tally.rows
    return {
        "name": about.get("name", "nightherd"),
        "state": state.state,
        "facts": _facts(answers, survey),
        "unfinished": "" if answers.finished else _unfinished(answers, survey, missing),
        "tiles": _tiles(survey.tally, state.tally, answers.rows),
        "settings": _settings(answers),
        "request": _request(answers),
        "forecast": held_rows(held_at(answers.manifest.output.url)),
    } | sections(survey, _asked(answers, survey))


def _asked(answers: CommittedRows, survey: Survey) -> dict[Place, str]:
    url = (answers.record.get("about") or {}).get("input")
    if not url:
        return {}
    request = answers.record.get("record", {}).get("request") or {}
    places = [(row["shard"], row["row"]) for row in survey.samples]
    return asked(url, answers.manifest.output.url, request, places)


def _facts(answers: CommittedRows, survey: Survey) -> list[str]:
    shards = len(answers.shards)
    facts = [f"{answers.rows:,} rows in {shards:,} shard{'' if shards == 1 else 's'}"]
    if survey.timeline.first is not None:
        facts.append(f"answered {moment(survey.timeline.first)} to {moment(survey.timeline.last)}")
    return [answers.manifest.output.url, *facts]


def _unfinished(answers: CommittedRows, survey: Survey, missing: int) -> str:
    if not missing:
        return "All rows are there, but the job has still to end: nightherd run, or retry, does that."
    return (
        f"This page is about the {survey.tally.rows:,} rows that are committed; {missing:,} of "
        f"{answers.rows:,} are still to come. The same command goes on with it."
    )


def _tiles(tally: Tally, recorded: Tally, rows: int) -> list[dict[str, str]]:
    """recorded: what isn't to be seen in the rows."""
    share = tally.cached_tokens / tally.prompt_tokens if tally.prompt_tokens else 0.0
    found = [
        (f"{tally.succeeded:,}", f"of {rows:,} rows answered", ""),
        (f"{tally.failed:,}", "rows with an error", "bad" if tally.failed else ""),
        (_short(tally.prompt_tokens), "tokens in", ""),
        (_short(tally.completion_tokens), "tokens out", ""),
        (f"{share:.0%}", "of tokens in from the cache", ""),
    ]
    if tally.skipped:
        found.append((f"{tally.skipped:,}", "rows left to another output's answers", ""))
    if recorded.reused:
        found.append((f"{recorded.reused:,}", "rows equal to an earlier one", ""))
    if recorded.seconds:
        found.append((span(recorded.seconds), "of workers' time", ""))
    if not tally.completion_tokens:
        del found[3:5]
    return [{"value": value, "label": label, "class": style} for value, label, style in found]


def _settings(answers: CommittedRows) -> list[tuple[str, str]]:
    record, about = answers.record, answers.record.get("about") or {}
    job = about.get("job") or {}
    model = (job.get("model") or {}).get("path", "")
    found = {
        "input": about.get("input"),
        "model": model,
        "model's sha256": record.get("model_sha256"),
        "engine": ", ".join(f"{k}: {v}" for k, v in (record.get("record", {}).get("engine") or {}).items()),
        "versions": ", ".join(f"{k} {v}" for k, v in (record.get("versions") or {}).items()),
        "fingerprint": record.get("fingerprint"),
    }
    return [(key, str(value)) for key, value in found.items() if value]


def _request(answers: CommittedRows) -> str:
    request = answers.record.get("record", {}).get("request") or {}
    shown = {key: value for key, value in request.items() if value}
    return yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, width=110).strip() if shown else ""


def _short(count: int) -> str:
    """ "12.3 M"."""
    for size, unit in ((1e9, "G"), (1e6, "M")):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:,}"
