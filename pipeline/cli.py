"""The command line. Exit status: 0 done, 1 not completed, 2 wrong use."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline import __version__, cli_help
from pipeline.errors import ConfigError, JobError

if TYPE_CHECKING:
    from pipeline.config import JobConfig

app = typer.Typer(
    name="nightherd",
    help="Run GGUF models over Parquet, overnight, on Ray. Every input row gets exactly one output row.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_JobFile = Annotated[Path | None, typer.Argument(metavar="JOB.yaml", help="The job file.")]
_Output = Annotated[str, typer.Argument(metavar="OUT", help="The job's output folder, or its URL.")]
_Model = Annotated[
    str | None,
    typer.Option(metavar="M", help="A GGUF: a path, a URL, hf://org/repo/file.gguf or package://name/file."),
]
_Input = Annotated[str | None, typer.Option(metavar="IN", help="The input file, folder or glob.")]
_Into = Annotated[str | None, typer.Option(metavar="OUT", help="The output folder.")]
_Actors = Annotated[int | None, typer.Option(metavar="N", help="Workers; by default as many as fit.")]
_Slots = Annotated[int | None, typer.Option(metavar="N", help="Rows that a worker decodes at once.")]
_Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Any key of the job file by its dotted name; repeatable."
    ),
]
_Limit = Annotated[int | None, typer.Option(metavar="N", help="Try the first N rows out, no more.")]
_Sample = Annotated[int | None, typer.Option(metavar="N", help="Try N random rows out, by a fixed seed.")]
_Json = Annotated[bool, typer.Option("--json", help="For programs.")]
_Html = Annotated[str | None, typer.Option(metavar="FILE", help="Where the page goes: a path or a URL.")]
_Gold = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN", help="The column with the right labels, carried along by output.keep: accuracy ..."
    ),
]
_Version = Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)]


@app.callback(invoke_without_command=True)
def _nightherd(version: _Version = False) -> None:
    if version:
        typer.echo(f"nightherd {__version__}")
        raise typer.Exit


@app.command(help=cli_help.RUN, short_help="Run a job, or resume it.")
def run(
    job_file: _JobFile = None,
    model: _Model = None,
    input: _Input = None,
    output: _Into = None,
    actors: _Actors = None,
    slots: _Slots = None,
    limit: _Limit = None,
    sample: _Sample = None,
    set: _Set = None,
) -> None:
    with _one_message():
        job = _job(job_file, model, input, output, actors, slots, set)
        from pipeline.plan.try_out import try_out

        asked = try_out(limit, sample)
        from pipeline.job.driver import run_job, try_job

        if asked:
            typer.echo(try_job(job, asked, tell=_tell))
        else:
            typer.echo(run_job(job, tell=_tell))


@app.command(help=cli_help.PLAN, short_help="Forecast a job.")
def plan(
    job_file: _JobFile = None,
    model: _Model = None,
    input: _Input = None,
    output: _Into = None,
    actors: _Actors = None,
    slots: _Slots = None,
    sample: _Sample = None,
    set: _Set = None,
    as_json: _Json = False,
) -> None:
    with _one_message():
        job = _job(job_file, model, input, output, actors, slots, set)
        from pipeline.plan.try_out import try_out

        try_out(None, sample)
        from pipeline.job.planner import plan_job
        from pipeline.report.forecast_text import forecast_text
        from pipeline.report.progress import Count

        with Count("rows checked") as count:
            forecast = plan_job(job, sample, tell=count.show, say=_tell)
        typer.echo(json.dumps(forecast.to_dict(), indent=1) if as_json else forecast_text(forecast))


@app.command(help=cli_help.SERVE, short_help="Answer OpenAI's HTTP routes.")
def serve(
    job_file: _JobFile = None,
    model: _Model = None,
    host: Annotated[str, typer.Option(metavar="H", help="The address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="P", min=0, max=65535, help="0 takes a free one.")] = 8000,
    api_key_file: Annotated[
        Path | None, typer.Option(metavar="F", help="Keys of clients, one a line: name:key or key.")
    ] = None,
    data: Annotated[
        str, typer.Option(metavar="DIR", help="Where files and batches lie: a folder or its URL.")
    ] = "~/.local/share/nightherd/serve",
    root_path: Annotated[str, typer.Option(metavar="PREFIX", help="Of all paths, behind a proxy.")] = "",
    replicas: Annotated[
        int | None, typer.Option(metavar="N", help="How many, on Ray; by default 1, in this process.")
    ] = None,
    slots: _Slots = None,
    set: _Set = None,
) -> None:
    with _one_message():
        # Nothing is read or written: a job file's input and output, if it has them, are left alone.
        unused = ["input.path=unused", "output.path=unused"]
        wanted = [f"serve.replicas={replicas}"] if replicas is not None else []
        job = _job(job_file, model, None, None, None, slots, [*(set or []), *wanted, *unused])
        on_ray = _on_ray(job)
        extra = "serve-cluster" if on_ray else "serve"
        try:
            from pipeline.serve.batches.office import Office
            from pipeline.serve.serving import Address, keys_for, serve

            if on_ray:
                from pipeline.serve.cluster.fleet import serve_on_cluster
        except ImportError as error:
            raise ConfigError(f'{error}: this needs pip install "nightherd[{extra}]"') from None
        address = Address(host, port, root_path.rstrip("/"))
        keys = keys_for(address, api_key_file)
        if on_ray:
            serve_on_cluster(job, address, keys, typer.echo, advise=_tell, data=data)
        else:
            serve(job, address, keys, typer.echo, advise=_tell, office=Office(data))


def _on_ray(job: JobConfig) -> bool:
    """Whether a job is served by replicas on Ray: there are several, or a cluster is named."""
    return job.serve.replicas != 1 or os.environ.get("RAY_ADDRESS", "local") != "local"


def _job(
    job_file: Path | None,
    model: str | None,
    input: str | None,
    output: str | None,
    actors: int | None,
    slots: int | None,
    set: list[str] | None,
) -> JobConfig:
    """The job of a file with the flags laid over it. Raises ConfigError."""
    from pipeline.config import load_job, parse_setting

    flags = {
        "model.path": model,
        "input.path": input,
        "output.path": output,
        "cluster.actors": actors,
        "engine.slots": slots,
    }
    settings = [parse_setting(text) for text in set or []]
    settings += [(name, value) for name, value in flags.items() if value is not None]
    _require(job_file, settings)
    return load_job(job_file, settings)


def _require(job_file: Path | None, settings: list[tuple[str, Any]]) -> None:
    """Says in the command line's own words what is missing where there is no job file."""
    names = {name for name, _ in settings}
    missing = [flag for flag in ("model", "input", "output") if f"{flag}.path" not in names]
    if missing and job_file is None:
        flags = ", ".join(f"--{flag}" for flag in missing)
        raise ConfigError(f"missing {flags}: give a job file, or all of --model, --input and --output")


@app.command(short_help="Run the failed rows of a finished job again.")
def retry(output: _Output, set: _Set = None) -> None:
    """Run the failed rows of a finished job again, alone, and put their new answers in place.

    The job is the one that is recorded in OUT; --set may change what doesn't touch the answers of the
    other rows: cluster.*, retry.*, engine.slots, engine.threads, or where the model and the input lie now.
    """
    with _one_message():
        from pipeline.config import parse_setting
        from pipeline.files.storage import Storage
        from pipeline.job.driver import retry_job
        from pipeline.output.records import recorded_job

        job = recorded_job(Storage.at(output), [parse_setting(text) for text in set or []])
        typer.echo(retry_job(job, tell=_tell))


@app.command(help=cli_help.DOCTOR, short_help="What this machine or cluster has, and what is wrong.")
def doctor(
    job_file: _JobFile = None,
    set: _Set = None,
    as_json: _Json = False,
) -> None:
    with _one_message():
        from pipeline.config import load_job, parse_setting
        from pipeline.doctor.doctor import examine
        from pipeline.doctor.table import print_examination
        from pipeline.plan.opened import anchored

        settings = [parse_setting(text) for text in set or []]
        job = anchored(load_job(job_file, settings)) if job_file or settings else None
        examination = examine(job)
        if as_json:
            typer.echo(json.dumps(examination.to_dict(), indent=1))
        else:
            print_examination(examination)
        if not examination.sound:
            raise typer.Exit(JobError.exit_status)


@app.command(help=cli_help.STATUS, short_help="Progress and totals of a job.")
def status(
    output: _Output,
    watch: Annotated[bool, typer.Option("--watch", help="Go on until the job has ended.")] = False,
    seconds: Annotated[
        float | None, typer.Argument(metavar="SECONDS", min=0.1, help="With --watch: between two looks.")
    ] = None,
) -> None:
    with _one_message():
        if seconds is not None and not watch:
            raise ConfigError(f"{seconds:g} would be the seconds of --watch, which is not given")
        if watch:
            from pipeline.report import watch as watching

            with suppress(KeyboardInterrupt):
                watching.watch(output, seconds or watching.EVERY)
        else:
            from pipeline.report.status import status as read_status

            typer.echo(str(read_status(output)))


@app.command(short_help="Prove that a finished job is complete.")
def verify(
    output: _Output,
    deep: Annotated[bool, typer.Option("--deep", help="Compare with every row of the input too.")] = False,
) -> None:
    """Prove that every input row has exactly one output row and that all totals agree."""
    with _one_message():
        from pipeline.output.verify import verify as recount

        report = recount(output, deep=deep)
        for line in [*report.notes, *report.problems]:
            typer.echo(line, err=True)
        if report.problems:
            raise JobError(f"{output}: {len(report.problems)} problem(s) found")
        typer.echo(f"{output}: every input row has exactly one output row, and all totals agree")
        totals = report.totals
        typer.echo(
            f"{totals.rows:,} rows, {totals.failed:,} with an error; {totals.prompt_tokens:,} prompt tokens "
            f"({totals.cached_tokens:,} cached), {totals.completion_tokens:,} completion tokens"
        )


@app.command(short_help="Write an HTML page that shows what a job did.")
def report(output: _Output, html: _Html = None, gold: _Gold = None) -> None:
    """Write one HTML file that shows what a job did; it works offline, and for unfinished jobs too.

    By default it is OUT/report.html. It needs pip install "nightherd[report]".
    """
    with _one_message():
        from pipeline.report.page import write_report
        from pipeline.report.progress import Count

        with Count("rows") as count:
            file = write_report(output, html, gold, count.show)
        typer.echo(f"report: {file}")


@app.command(short_help="What changed between two runs over the same rows.")
def diff(
    first: Annotated[str, typer.Argument(metavar="OUT1", help="An output folder, or its URL.")],
    second: Annotated[str, typer.Argument(metavar="OUT2", help="Another one.")],
    html: _Html = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Say what changed between two runs over the same rows, matched by shard and custom_id.

    Agreement, changed labels, examples, tokens and time, and the settings that differ. --html also writes a
    page that works offline (it needs pip install "nightherd[report]").
    """
    with _one_message():
        from pipeline.report import diff as difference
        from pipeline.report.progress import Count

        with Count("rows") as count:
            result = difference.diff(first, second, count.show)
        if html is not None:
            from pipeline.report.diff_page import write_diff

            typer.echo(f"report: {write_diff(result, html)}", err=True)
        text = json.dumps(difference.as_json(result)) if as_json else difference.as_text(result)
        typer.echo(text)


@app.command(help=cli_help.EXPORT, short_help="Write the answers in OpenAI's batch format.")
def export(
    output: _Output,
    file: Annotated[str, typer.Argument(metavar="FILE.jsonl", help="A path, a URL, or - for stdout.")],
    errors: Annotated[
        str | None, typer.Option(metavar="FILE", help="Where failed rows go instead: OpenAI's error file.")
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Also what is committed of a job that isn't finished.")
    ] = False,
) -> None:
    with _one_message():
        from pipeline.output.export import STANDARD_OUTPUT
        from pipeline.output.export import export as write
        from pipeline.report.progress import Count

        with Count("rows") as count:
            done = write(output, file, errors, partial=partial, tell=count.show)
        split = f", those in {errors}" if errors else ""
        lines = f"{file}: {done.lines:,} of {done.rows:,} rows, {done.failed:,} with an error{split}"
        typer.echo(lines, err=STANDARD_OUTPUT in (file, errors))


def _tell(line: str) -> None:
    typer.echo(line, err=True)


@contextmanager
def _one_message() -> Iterator[None]:
    """Turns a JobError into its message on stderr and its exit status."""
    try:
        yield
    except JobError as error:
        print(f"nightherd: {error}", file=sys.stderr)
        raise typer.Exit(error.exit_status) from None
    except KeyboardInterrupt:
        print("nightherd: interrupted", file=sys.stderr)
        raise typer.Exit(JobError.exit_status) from None


if __name__ == "__main__":
    app()
