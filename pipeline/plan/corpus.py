"""The input as it is now, held against the shards that its output has: what is new, changed or gone."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pipeline.config import Changed
from pipeline.errors import InputError, OutputError
from pipeline.files.storage import Storage
from pipeline.input.shards import Shard, ShardPlan, plan_shard
from pipeline.output.fingerprint import FORMAT, Fingerprint
from pipeline.output.history import number_of
from pipeline.output.manifest import Manifest
from pipeline.output.records import RECORD, RESPONSES, SUCCESS, read_record, response_name
from pipeline.output.sources import Entry, entry_of, is_same, recorded_plan

_SHOWN = 10
_SECONDS = 1e11
"""More is no number of seconds since 1970."""


@dataclass(frozen=True)
class Change:
    """A shard that isn't what it was when it was taken on. now: None where its file is gone."""

    name: str
    then: Entry
    now: ShardPlan | None

    def __str__(self) -> str:
        if self.now is None:
            return f"{self.name}: is gone"
        then, now = self.then, entry_of(self.now)
        told = [f"{now[key]:,} {unit}, was {then[key]:,}" for key, unit in _UNITS if now[key] != then[key]]
        if now["stamp"] != then.get("stamp") and then.get("stamp"):
            told.append(f"written {_when(now['stamp'])}, was {_when(then['stamp'])}")
        return f"{self.name}: {'; '.join(told or ['its contents are others'])}"


_UNITS = (("rows", "rows"), ("size", "bytes"))


@dataclass
class Corpus:
    """The shards of a job. plans: of all of them, in the order of their names. entries: what the record is to
    say of them. new: those that the record didn't have. redone, kept: those that changed or went, as the job
    wants it. left: new ones that have to wait.
    """

    plans: list[ShardPlan] = field(default_factory=list)
    entries: dict[str, Entry] = field(default_factory=dict)
    new: list[str] = field(default_factory=list)
    redone: list[Change] = field(default_factory=list)
    kept: list[Change] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    @property
    def planned(self) -> list[ShardPlan]:
        """The plans that were made from files."""
        return [plan for plan in self.plans if not plan.recorded]

    @property
    def notes(self) -> list[str]:
        """What a person should know of it, a line each."""
        lines = [f"new in the input: {_shards(self.new)}"] if self.new else []
        lines += [f"changed, and answered again: {change}" for change in self.redone if change.now]
        lines += [f"its answers are removed: {change}" for change in self.redone if not change.now]
        lines += [f"its answers are kept: {change}" for change in self.kept]
        if self.left:
            lines.append(f"new in the input, left for nightherd run: {_shards(self.left)}")
        return lines

    def take(self, plan: ShardPlan, entry: Entry) -> None:
        self.plans.append(plan)
        self.entries[plan.shard.name] = entry


@dataclass(frozen=True)
class Earlier:
    """What earlier runs have left in a job's output. record: None where no job has begun there."""

    output: Storage
    record: Mapping[str, Any] | None = None

    @classmethod
    def at(cls, output: Storage) -> Earlier:
        """Raises OutputError where what lies there is no record of a job."""
        return cls(output, read_record(output, SUCCESS) or read_record(output, RECORD))

    @cached_property
    def prints(self) -> Fingerprint:
        """What the job there is of."""
        return Fingerprint.recorded(self.record) if self.record is not None else Fingerprint({})

    @property
    def seen(self) -> Mapping[str, Entry] | None:
        """The shards that it has; None where there is no record."""
        return self.prints.shards if self.record is not None else None

    @property
    def format(self) -> int:
        return self.prints.format

    def parsed(self, wanted: object) -> tuple[str | None] | None:
        """What the column `parsed` there is made by, in a tuple; None where that is to be found out anew.

        wanted: the job's output.parsed."""
        job = ((self.record or {}).get("about") or {}).get("job") or {}
        if (job.get("output") or {}).get("parsed", wanted if job else None) != wanted:
            return None
        return (self.prints.parsed,)

    @property
    def _is_retried(self) -> bool:
        """Whether a retry is under way: failed rows are read again."""
        return bool((self.record or {}).get("retry")) and not read_record(self.output, SUCCESS)

    def finished(self, shards: Iterable[Shard]) -> dict[Shard, ShardPlan]:
        """The plans of shards that are answered, and have the size and the time of change that they had then:
        their files aren't read again."""
        if self.record is None or self._is_retried:
            return {}
        there = self.output.list(RESPONSES)
        known = self.prints.shards
        return {
            shard: recorded_plan(shard, entry)
            for shard in shards
            if response_name(shard) in there
            and (entry := known.get(shard.name))
            and shard.stamp
            and (shard.size, shard.stamp) == (entry["size"], entry.get("stamp"))
        }

    def merged(self, plans: Sequence[ShardPlan], changed: Changed, retries: bool = False) -> Corpus:
        """The job's shards now.

        plans: of all shards of the input. changed: as `input.changed`. retries: whether only those that the
        record has count. Raises OutputError for shards that changed, where they may not."""
        known, now, corpus = self.prints.shards, {plan.shard.name: plan for plan in plans}, Corpus()
        changes = []
        for name in sorted(known.keys() | now.keys()):
            plan, entry = now.get(name), known.get(name)
            if entry is None:
                if retries:
                    corpus.left.append(name)
                else:
                    corpus.new += [name] if self.record is not None else []
                    corpus.take(now[name], self._taken_on(now[name]))
            elif plan and is_same(entry, entry_of(plan)):
                corpus.take(plan, self._known(plan, entry))
            else:
                changes.append(Change(name, entry, plan))
        if changes:
            self._settle(corpus, changes, changed, retries)
        if self.format < FORMAT and (corpus.new or changes):
            raise OutputError(
                f"output {self.output.url} was begun by an earlier version, which bound its answers to all "
                "of its input: choose another output for the input as it is now"
            )
        corpus.plans.sort(key=lambda plan: plan.shard.name)
        return corpus

    def _settle(self, corpus: Corpus, changes: list[Change], changed: Changed, retries: bool) -> None:
        if changed == "refuse" or (changed == "redo" and retries):
            raise OutputError(_refusal(self.output.url, changes, retries))
        for change in changes:
            if changed == "keep" and self._is_answered(change):
                corpus.kept.append(change)
                # The file that it had lay where it would lie now.
                path = change.now.shard.path if change.now else ""
                shard = Shard(change.name, path, change.then["size"], change.then.get("stamp", ""))
                corpus.take(recorded_plan(shard, change.then), {**change.then, "kept": True})
            else:
                corpus.redone.append(change)
                if change.now:
                    corpus.take(change.now, self._taken_on(change.now))

    def _is_answered(self, change: Change) -> bool:
        """Whether all of its rows have answers: what is half answered can't be kept."""
        plan = recorded_plan(Shard(change.name, "", 0, ""), change.then)
        return Manifest(self.output, self.prints).answered(plan) is not None

    def _taken_on(self, plan: ShardPlan) -> Entry:
        number = number_of((self.record or {}).get("runs", []))
        return entry_of(plan) | ({"run": number} if number > 1 else {})

    def _known(self, plan: ShardPlan, entry: Entry) -> Entry:
        """The entry stays as it is, but that the file may have been written anew as it was."""
        if self.format < FORMAT:
            return entry
        kept = {name: entry[name] for name in ("run",) if name in entry}
        return entry_of(plan) | kept


def looked_into(plan: ShardPlan) -> ShardPlan:
    """The plan of a shard whose answers turn out not to be there.

    Raises InputError where its file is gone, or has changed."""
    if not plan.recorded:
        return plan
    lost = f"{plan.shard.name}: its answers have gone, and its file is another one by now, or gone"
    try:
        read = plan_shard(plan.shard)
    except InputError as error:
        raise InputError(f"{lost}: {error}") from error
    if not is_same(entry_of(plan), entry_of(read)):
        raise InputError(lost)
    return read


def _refusal(output: str, changes: list[Change], retries: bool) -> str:
    lines = [str(change) for change in changes[:_SHOWN]]
    more = [f"... and {len(changes) - _SHOWN} more"] if len(changes) > _SHOWN else []
    cure = "keep leaves their answers as they are"
    cure += "; nightherd run with redo" if retries else ", redo"
    head = (
        f"output {output}: its input is another one than was answered. input.changed says what to do: {cure} "
        "answers changed shards again, and removes the answers of those that are gone; or restore them:"
    )
    return "\n  ".join([head, *lines, *more])


def _when(stamp: str) -> str:
    """A time as people write it; an etag as it is."""
    try:
        # A listing of local files has nanoseconds.
        seconds = float(stamp) / (1e9 if float(stamp) > _SECONDS else 1)
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
    except (ValueError, OverflowError, OSError):
        return stamp


def _shards(names: Sequence[str]) -> str:
    count = "1 shard" if len(names) == 1 else f"{len(names):,} shards"
    return f"{count}: {', '.join(names[:3])}{' ...' if len(names) > 3 else ''}"
