"""The files of an output: their names, and the records among them."""

from __future__ import annotations

import io
import json
import platform
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config import JobConfig, make_job
from pipeline.errors import OutputError
from pipeline.files.storage import Storage
from pipeline.input.parquet import footer_digest, parquet_file
from pipeline.input.shards import Shard, output_of
from pipeline.output.fingerprint import FORMAT
from pipeline.output.footer import Footer, read_footer
from pipeline.tally import Tally

WORK = "_work"
RECORD = f"{WORK}/job.json"
PROGRESS = f"{WORK}/progress.json"
PLANS = f"{WORK}/plans.arrow"
FORECAST = f"{WORK}/forecast.json"
REPACK = f"{WORK}/repack.json"
KERNELS = f"{WORK}/kernels"
CHUNKS = f"{WORK}/chunks"
RESPONSES = "responses"
USAGE = "usage.parquet"
SUCCESS = "_SUCCESS"
REPORT = "report.html"
TRY_OUT = "tryout.parquet"
DRAFT = ".draft"
_READERS = 16
_PACKAGES = ("nightherd", "ray", "llama-cpp-python", "pyarrow")
USAGE_SCHEMA = pa.schema(
    [("shard", pa.string())]
    + [(name, pa.int64()) for name in ("rows", "succeeded", "failed", "prompt_tokens")]
    + [(name, pa.int64()) for name in ("completion_tokens", "cached_tokens", "total_tokens", "attempts")]
    + [("seconds", pa.float64())]
)


@contextmanager
def answers_of(output: Storage, name: str, buffer_size: int = 0) -> Iterator[pq.ParquetFile]:
    """A file of answers. What is broken in it raises an OutputError that names it; FileNotFoundError.

    buffer_size: as `parquet_file`."""
    with output.open_input(name) as file:
        try:
            yield parquet_file(file, buffer_size, checked=True)
        except FileNotFoundError:
            raise
        except (OutputError, pa.ArrowException, OSError) as error:
            raise OutputError(
                f"{output.url}/{name}: {error}; remove it, and nightherd run answers its rows again"
            ) from error


def footer_of(output: Storage, name: str) -> Footer:
    """The footer of a file of answers; as `answers_of`."""
    with answers_of(output, name) as parquet:
        return read_footer(parquet)


def footers_of(output: Storage, names: Iterable[str]) -> dict[str, Footer]:
    """The footers of those of the files that are there, in the order of `names`; as `answers_of`."""

    def footer_if_there(name: str) -> tuple[str, Footer] | None:
        try:
            return name, footer_of(output, name)
        except FileNotFoundError:
            return None

    with ThreadPoolExecutor(_READERS) as pool:
        return dict(filter(None, pool.map(footer_if_there, names)))


def digests_of(output: Storage, shards: Iterable[str]) -> dict[str, str]:
    """A digest of each shard's response file, to detect that it was replaced."""

    def digest(shard: str) -> tuple[str, str]:
        with output.open_input(response_name(shard)) as file:
            return shard, footer_digest(file)

    with ThreadPoolExecutor(_READERS) as pool:
        return dict(pool.map(digest, shards))


def read_record(output: Storage, name: str) -> dict[str, Any] | None:
    """A JSON file of the output; None where it is absent. Raises OutputError where it isn't one of ours:
    other tools leave a _SUCCESS, too."""
    try:
        record = json.loads(output.read_bytes(name))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        raise OutputError(f"{output.url}/{name}: not JSON: {error}") from None
    if name in (SUCCESS, RECORD) and not (isinstance(record, dict) and "fingerprint" in record):
        raise OutputError(f"{output.url}/{name}: not a record of nightherd's")
    if isinstance(record, dict) and record.get("format", 1) > FORMAT:
        raise OutputError(f"{output.url}/{name}: written by a newer version of nightherd: upgrade this one")
    return record if isinstance(record, dict) else {}


def kernels_of(output: Storage) -> list[dict[str, Any]]:
    """The kernels that the workers of a job under way have noted, as its `_SUCCESS` will list them."""
    notes = (read_record(output, name) for name in sorted(output.list(KERNELS)))
    return [note for note in notes if note]


def recorded_job(output: Storage, settings: Iterable[tuple[str, Any]] = ()) -> JobConfig:
    """The job that an output belongs to, with `settings` (dotted name, value) laid over it.

    Its limits were those of earlier nights: they are left out.
    Raises OutputError where no job is recorded, ConfigError for a wrong setting."""
    record = read_record(output, SUCCESS) or read_record(output, RECORD)
    if not record:
        raise OutputError(f"output {output.url}: no job is recorded there")
    tree = (record.get("about") or {}).get("job")
    if not isinstance(tree, dict):
        raise OutputError(
            f"output {output.url}: its record names no job file's keys; it is of an older version"
        )
    kept = {name: section for name, section in tree.items() if name != "limits"}
    return make_job(kept, [*settings, ("output.path", output.url)], "command line")


def versions() -> dict[str, str]:
    """The versions of what results depend on; "absent" for a package that isn't installed."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found


def write_record(file: BinaryIO, record: Mapping[str, Any]) -> None:
    """A record as its file holds it."""
    file.write(json.dumps(record, indent=1, sort_keys=True).encode())


def usage_bytes(tallies: Mapping[str, Tally]) -> bytes:
    """`usage.parquet`, one row per shard."""
    rows = [{"shard": name, **tally.numbers} for name, tally in tallies.items()]
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, USAGE_SCHEMA), file)
    return file.getvalue()


def chunk_folder(shard: str, source: str, retry: int = 0) -> str:
    """Where the chunks of a version of a shard lie. retry: the number of the retry that they belong to."""
    return "/".join(filter(None, (f"{WORK}/retry-{retry}" if retry else CHUNKS, source, shard)))


def response_name(shard: Shard | str) -> str:
    """The file of a committed shard, or of one of this name."""
    return f"{RESPONSES}/{output_of(shard.name if isinstance(shard, Shard) else shard)}"
