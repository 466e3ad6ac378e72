"""Proof, from the files alone, that every input row has exactly one output row and that all totals agree."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from math import isclose, nan
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.config import RequestConfig
from pipeline.errors import InputError, JobError, OutputError
from pipeline.files.storage import Storage
from pipeline.input.parquet import footer_digest, parquet_file, row_batches
from pipeline.input.shard_reader import ShardReader, row_reader
from pipeline.input.shards import Shard, ShardPlan, chunks, list_shards, plan_shard
from pipeline.output.answered_ids import AnsweredIds, skipped
from pipeline.output.fingerprint import Fingerprint
from pipeline.output.footer import Footer, check_counts, read_footer
from pipeline.output.records import (
    RESPONSES,
    SUCCESS,
    USAGE,
    USAGE_SCHEMA,
    WORK,
    read_record,
    response_name,
)
from pipeline.request.rows import records
from pipeline.tally import ALREADY_ANSWERED, Tally

_BATCH = 256
_NAMES = 8192
_NAMED = 5


@dataclass
class Report:
    """problems: one line each, none for a complete output. notes: what was left out, and why.
    totals: counted anew from the rows' files."""

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    totals: Tally = field(default_factory=Tally)


def verify(output_url: str, deep: bool = False) -> Report:
    """Recounts an output. Reads all of its files, and the footers of the input if it is there.

    deep: the input must be there, and each of its rows is compared by name with the answer in its place.
    """
    return _Verification(Storage.at(output_url)).run(deep)


class _Verification:
    def __init__(self, output: Storage) -> None:
        self.output = output
        self.report = Report()
        self.success: Mapping[str, Any] = {}
        self.prints = Fingerprint({})

    def run(self, deep: bool) -> Report:
        files = self.output.list()
        with self._noting(SUCCESS):
            self.success = read_record(self.output, SUCCESS) or {}
            if not self.success:
                raise OutputError("is absent: the job is not finished")
            self._check_record()
        if self.report.problems:
            return self.report
        left = [name for name in files if name.startswith(f"{WORK}/")]
        if left:
            self._note(f"{WORK}: {len(left)} file(s) left of a finished job, {left[0]} among them")
        tallies = self._check_responses([name for name in files if name.startswith(f"{RESPONSES}/")])
        with self._noting(SUCCESS):
            self._check_totals(tallies)
            self._check_input(deep)
            if skipped := [name for name, tally in tallies.items() if tally.skipped]:
                self._check_skipped(skipped, deep)
        return self.report

    def _check_record(self) -> None:
        self.prints = Fingerprint.recorded(self.success)
        if self.prints.digest != self.success["fingerprint"]:
            raise OutputError("what it records of the job isn't what its fingerprint was made of")
        rows = {name: shard["rows"] for name, shard in self.prints.shards.items()}
        if self.success["shards"] != rows:
            raise OutputError(f"says {self.success['shards']} of the shards' rows, the job had {rows}")
        Tally.from_dict(self.success["totals"])

    def _check_responses(self, files: list[str]) -> dict[str, Tally]:
        """Each shard's tally, where its file is sound."""
        shards = {response_name(name): name for name in self.success.get("shards", {})}
        for name in sorted(set(files) - set(shards)):
            self._note(f"{name}: belongs to no shard of the job")
        for name in sorted(set(shards) - set(files)):
            self._note(f"{name}: is absent")
        tallies: dict[str, Tally] = {}
        for name in sorted(set(files) & set(shards)):
            with self._noting(name), self.output.open_input(name) as file:
                footer = self._check_response(
                    parquet_file(file, buffer_size=1 << 20, checked=True), shards[name]
                )
                tallies[footer.shard] = footer.tally
                if self.success.get("digests", {}).get(footer.shard) not in (None, footer_digest(file)):
                    raise OutputError("has been changed since the job finished")
        return tallies

    def _check_response(self, parquet: pq.ParquetFile, shard: str) -> Footer:
        footer = read_footer(parquet)
        if footer.fingerprint != self.success.get("fingerprint"):
            raise OutputError(f"belongs to another job ({footer.fingerprint})")
        place = (footer.shard, footer.start, footer.stop)
        if place != (shard, 0, self.success["shards"][shard]):
            raise OutputError(
                f"holds rows {footer.start} to {footer.stop} of {footer.shard}, not all of {shard}"
            )
        if footer.source != self.prints.source(shard):
            raise OutputError("holds the answers to another version of the shard")
        check_counts(parquet, footer.tally)
        # All columns: what can't be read is no answer.
        for batch in row_batches(parquet, _BATCH):
            _check_rows(batch)
        return footer

    def _check_totals(self, tallies: Mapping[str, Tally]) -> None:
        self.report.totals = sum(
            (tallies[name] for name in self.success["shards"] if name in tallies), Tally()
        )
        recorded = self.success.get("totals", {})
        if not _agree(recorded, self.report.totals):
            self._note(f"{SUCCESS}: says {recorded}, the shards add up to {self.report.totals.to_dict()}")
        with self._noting(USAGE), self.output.open_input(USAGE) as file:
            rows = parquet_file(file).read(columns=USAGE_SCHEMA.names, use_threads=False).to_pylist()
            names = [row["shard"] or "" for row in rows]
            if sorted(names) != sorted(self.success["shards"]):
                raise OutputError(
                    f"has {len(names)} rows, not one for each of {len(self.success['shards'])} shards"
                )
            for row in rows:
                tally = tallies.get(row["shard"])
                if tally is not None and not _agree(row, tally):
                    self._note(f"{USAGE}: {row['shard']}: says {row}, its rows add up to {tally.to_dict()}")

    def _check_input(self, deep: bool) -> None:
        url = (self.success.get("about") or {}).get("input")
        if not url:
            if deep:
                self._note(f"{SUCCESS}: names no input to compare with")
            return
        try:
            shards = {shard.name: shard for shard in list_shards(url, self.output.url)}
        except JobError as error:
            if deep:
                self._note(f"the input can't be read: {error}")
            return
        known = self.success["shards"]
        kept = self._kept()
        for name in sorted((shards.keys() ^ known.keys()) - kept):
            self._note(f"{name}: {'is new in' if name in shards else 'is gone from'} the input {url}")
        for name in sorted((shards.keys() & known.keys()) - kept):
            with self._noting(name):
                self._check_shard(shards[name], known[name], deep)

    def _kept(self) -> set[str]:
        """Shards whose files have changed or gone, and whose answers stay: nothing to compare with."""
        kept = {name for name, entry in self.prints.shards.items() if entry.get("kept")}
        if kept:
            count = "1 shard" if len(kept) == 1 else f"{len(kept):,} shards"
            self.report.notes.append(
                f"not compared with the input: {count} that changed or went away, whose answers were kept "
                f"(input.changed): {', '.join(sorted(kept)[:_NAMED])}{' ...' if len(kept) > _NAMED else ''}"
            )
        return kept

    def _check_shard(self, shard: Shard, rows: int, deep: bool) -> None:
        plan = plan_shard(shard)
        recorded = self.prints.shards.get(shard.name, {})
        if plan.rows != rows:
            raise InputError(f"has {plan.rows} rows, its answers are {rows}")
        if plan.digest != recorded.get("digest", plan.digest):
            raise InputError("the input has changed since the job ran")
        if deep:
            self._compare_names(plan)

    def _check_skipped(self, shards: list[str], deep: bool) -> None:
        """Rows may have been left to other outputs. deep: each of them must have its answer in one."""
        urls = self.success.get("skip", [])
        if not urls:
            raise OutputError(f"names no output that rows were left to, but rows of {shards[0]} were skipped")
        if not deep:
            return
        answered = AnsweredIds.of(urls)
        for name in shards:
            with self._noting(response_name(name)):
                self._check_elsewhere(name, answered, urls)

    def _check_elsewhere(self, shard: str, answered: AnsweredIds, urls: list[str]) -> None:
        with self.output.open_input(response_name(shard)) as file:
            for batch in row_batches(parquet_file(file), _NAMES, ["custom_id", "status_code"]):
                table = pa.Table.from_batches([batch])
                names = table.filter(skipped(table)).column("custom_id").to_pylist()
                for name, known in zip(names, answered.known(names), strict=True):
                    if not known:
                        raise OutputError(f"{name!r} was skipped, but has no answer in {', '.join(urls)}")

    def _compare_names(self, plan: ShardPlan) -> None:
        with self.output.open_input(response_name(plan.shard)) as file:
            answered = _names(parquet_file(file))
            for number, name in enumerate(self._asked(plan)):
                found = next(answered, None)
                if found != name:
                    raise OutputError(f"row {number} is {name!r}, the answer in its place is {found!r}'s")

    def _asked(self, plan: ShardPlan) -> Iterator[str]:
        config = RequestConfig.model_validate(self.success["record"]["request"])
        rows = row_reader(config, plan)
        with ShardReader(plan, rows.columns) as reader:
            for chunk in chunks(plan):
                for number, record in enumerate(records(reader.read(chunk), rows.columns), chunk.start):
                    yield rows.read(record, number).custom_id

    def _note(self, problem: str) -> None:
        self.report.problems.append(problem)

    def _noting(self, name: str) -> _Noting:
        return _Noting(name, self._note)


@dataclass
class _Noting:
    """A block whose failure becomes a problem of the file `name`, and does not end the verification."""

    name: str
    note: Callable[[str], None]

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, FileNotFoundError):
            self.note(f"{self.name}: is absent")
        elif isinstance(error, JobError | pa.ArrowException | OSError):
            self.note(f"{self.name}: {error}")
        elif isinstance(error, AttributeError | KeyError | TypeError | ValueError):
            self.note(f"{self.name}: can't be read: {error!r}")
        else:
            return False
        return True


def _check_rows(batch: pa.RecordBatch) -> None:
    table = pa.Table.from_batches([batch])
    if table.column("custom_id").null_count:
        raise OutputError(f"{table.column('custom_id').null_count} rows have no custom_id")
    good = pc.is_in(table.column("status_code"), pa.array([200, ALREADY_ANSWERED], pa.int16()))
    if not pc.all(pc.equal(good, pc.is_null(table.column("error")))).as_py() and table.num_rows:
        raise OutputError("a row has an error and status 200, or neither")


def _agree(record: Mapping[str, Any], tally: Tally) -> bool:
    # usage.parquet doesn't say how many rows were reused, nor does any record of an older version.
    known = {"reused": tally.reused, **record}
    # Seconds are sums of floats: their last bits depend on the order.
    return all(isclose(known.get(name, nan), value, abs_tol=1e-6) for name, value in tally.numbers.items())


def _names(parquet: pq.ParquetFile) -> Iterator[str]:
    for batch in parquet.iter_batches(batch_size=_NAMES, columns=["custom_id"], use_threads=False):
        yield from batch.column(0).to_pylist()
