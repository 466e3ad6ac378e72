"""A job's record in its output: what the output is of, and that it is finished."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.errors import OutputError
from pipeline.files.storage import ASIDE, Storage
from pipeline.input.shards import ShardPlan
from pipeline.output.commits import Commits
from pipeline.output.fingerprint import Fingerprint
from pipeline.output.footer import Footer
from pipeline.output.history import Run, runs_with
from pipeline.output.records import (
    DRAFT,
    FORECAST,
    KERNELS,
    PLANS,
    PROGRESS,
    RECORD,
    REPACK,
    REPORT,
    RESPONSES,
    SUCCESS,
    TRY_OUT,
    USAGE,
    WORK,
    digests_of,
    kernels_of,
    read_record,
    usage_bytes,
    versions,
    write_record,
)
from pipeline.output.same_job import check_same_job, differs, has_other_shards
from pipeline.output.sources import Entry
from pipeline.tally import Tally

_SHOWN = 10
_CARRIED = ("kernels", "cpu_repack", "runs")


class Manifest(Commits):
    """The commits of one job in one output folder, and the record that claims the folder for it.

    about: facts for the records that results don't depend on (name, input, model ...), JSON values.
    seen: the shards of the record from which those of `fingerprint` were made; None where there was none.
    retry: the number of the retry that was found under way, or begun; 0 for the job's first run.
    """

    def __init__(
        self,
        output: Storage,
        fingerprint: Fingerprint,
        about: Mapping[str, Any] | None = None,
        seen: Mapping[str, Entry] | None = None,
    ) -> None:
        super().__init__(output, fingerprint)
        self._about = dict(about or {})
        self._seen = seen
        self._is_ours = False
        self.retry = 0

    @property
    def is_finished(self) -> bool:
        """Whether the job is finished with the shards that it had."""
        return self._recorded(SUCCESS) is not None

    def begin(self) -> bool:
        """Claims the output for this job; True if the job is already finished there, with all its shards.

        Where other shards have come or gone since the record was made from which this job's were, the record
        takes them on. Raises OutputError, which names every difference, where the output is another job's.
        """
        record = self._recorded(SUCCESS)
        if record:
            self._check(record)
            if not has_other_shards(self.fingerprint, record):
                self.output.remove_tree(WORK)
                return True
            self._take_on(record)
            return False
        if not self._recorded(RECORD):
            record = self._record() | {"retry": self._found()}
            self._is_ours = self._write(RECORD, record)
        begun = self._recorded(RECORD)
        if begun is None:  # Another driver has just finished the job.
            return self.begin()
        self._check(begun)
        if has_other_shards(self.fingerprint, begun):
            self._take_on(begun)
        elif skips := self._skips(begun) - set(begun.get("skip", [])):
            record = begun | {"skip": sorted({*skips, *begun.get("skip", [])})}
            self.output.overwrite(RECORD, lambda file: write_record(file, record))
        self.retry = _retry(begun)
        return False

    def withdraw(self) -> None:
        """Gives up a claim that `begin` made, where nothing has been answered: a corrected job may have the
        output."""
        answers = (".parquet", DRAFT)
        if self._is_ours and not any(name.endswith(answers) for name in self.output.list()):
            self.output.remove_tree(WORK)

    def reopen(self) -> int:
        """Makes a finished job unfinished, so that failed rows are tried again; the number of this retry.

        A retry that was stopped keeps its number. Raises OutputError where there is no finished job.
        """
        finished, begun = self._recorded(SUCCESS), self._recorded(RECORD)
        if finished:
            self._check(finished)
            self._whole()
            self.retry = _retry(finished) + 1
            record = self._record(finished) | {"retry": self.retry, "before": finished["totals"]}
            self._reopen(record | _carried(finished, *_CARRIED, "forecast"))
            return self.retry
        if not begun or not _retry(begun):
            raise OutputError(f"output {self.output.url}: the job isn't finished: nightherd run ends it")
        self._check(begun)
        self.retry = _retry(begun)
        return self.retry

    def _take_on(self, record: Mapping[str, Any]) -> None:
        """Makes the record, of a finished job or of one under way, one of the shards that there are now.

        Nothing but the record says which answers count: those to other versions of a shard may go any time.
        """
        earlier = Fingerprint.recorded(record)
        if self._seen is None:
            raise differs(self.output.url, self.fingerprint.differences(earlier))
        if dict(earlier.shards) != dict(self._seen):
            raise OutputError(
                f"output {self.output.url}: another command has just changed which shards it has: run this "
                "one again"
            )
        mine = self._record(record) | _carried(record, *_CARRIED)
        if not self._recorded(SUCCESS):
            mine |= {"retry": _retry(record)} | _carried(record, "before")
        # They are of other shards.
        self.output.remove(FORECAST)
        self.output.remove(PROGRESS)
        self._reopen(mine)
        self._remove_outdated()

    def _reopen(self, record: Mapping[str, Any]) -> None:
        # In this order: at every moment one of the two is there.
        self.output.overwrite(RECORD, lambda file: write_record(file, record))
        self.output.remove(SUCCESS)

    def _remove_outdated(self) -> None:
        """Removes this job's answers to shards, and to versions of shards, that it has no more."""
        for name in self.output.list(RESPONSES):
            if self._is_outdated(name):
                self.output.remove(name)

    def finish(self, plans: Sequence[ShardPlan]) -> Tally:
        """Writes usage.parquet, then _SUCCESS, then clears the work folder; the job's totals.

        plans: of all shards. A job that is finished already stays as it is. Raises OutputError where a shard
        is missing, or has other rows than its input, or is unknown, and where another command has begun to
        retry the job, or to take on other shards.
        """
        record = self._recorded(SUCCESS) or self._recorded(RECORD)
        if record and has_other_shards(self.fingerprint, record):
            raise OutputError(f"output {self.output.url}: another command has taken on other shards by now")
        finished = self._whole()
        if not self._recorded(SUCCESS):
            self._remove_outdated()
            self._succeed({plan.shard.name: finished[plan.shard.name] for plan in plans})
        self.output.remove(TRY_OUT)
        self.output.remove_tree(WORK)
        return sum((footer.tally for footer in finished.values()), Tally())

    def _succeed(self, finished: Mapping[str, Footer]) -> None:
        if self.under_way() not in (None, self.retry):
            raise OutputError(f"output {self.output.url}: its failed rows are being retried by now")
        tallies = {name: footer.tally for name, footer in finished.items()}
        self.output.replace(USAGE, usage_bytes(tallies))
        begun, now = self._recorded(RECORD) or {}, time.time()
        done: dict[str, Any] = {
            "finished": now,
            "shards": {name: tally.rows for name, tally in tallies.items()},
            "totals": sum(tallies.values(), Tally()).to_dict(),
            "digests": digests_of(self.output, tallies),
            "retry": max([self.retry, begun.get("last_retry", 0), *(f.retry for f in finished.values())]),
            "runs": self._runs(begun, tallies, now),
        }
        if note := self._recorded(REPACK) or begun.get("cpu_repack"):
            done["cpu_repack"] = note
        if kernels := self._kernels():
            done["kernels"] = kernels
        if forecast := self._recorded(FORECAST) or begun.get("forecast"):
            done["forecast"] = forecast
        self._write(SUCCESS, self._record(begun) | done)

    def _runs(self, begun: Mapping[str, Any], tallies: Mapping[str, Tally], now: float) -> list[Run]:
        shards, runs, before = self.fingerprint.shards, begun.get("runs", []), begun.get("before")
        return runs_with(runs, shards, tallies, self.retry, before, finished=now)

    def _kernels(self) -> list[dict[str, Any]]:
        """The kernels that computed the answers, of earlier runs as well."""
        earlier = (self._recorded(RECORD) or {}).get("kernels", [])
        found = {note["system_fingerprint"]: note for note in [*earlier, *kernels_of(self.output)]}
        return list(found.values())

    def under_way(self) -> int | None:
        """The number of the retry under way, 0 for the job's first run; None where nothing is."""
        begun = self._recorded(RECORD)
        return None if begun is None else _retry(begun)

    def _whole(self) -> dict[str, Footer]:
        """The footers of all shards. Raises OutputError where one is missing, unknown, or not its input's."""
        found = self._responses()
        if wrong := self._wrong(found):
            raise OutputError(
                f"output {self.output.url}: not every shard is committed: {', '.join(wrong[:_SHOWN])}; where "
                f"{SUCCESS} says otherwise, remove it, and nightherd run does what is missing"
            )
        return found

    def _wrong(self, found: Mapping[str, Footer]) -> list[str]:
        rows = {name: shard["rows"] for name, shard in self.fingerprint.shards.items()}
        has = {name: footer.tally.rows for name, footer in found.items()}
        names = sorted(rows.keys() | has.keys())
        return [f"{n} ({has.get(n)} of {rows.get(n)} rows)" for n in names if has.get(n) != rows.get(n)]

    def _skips(self, earlier: Mapping[str, Any]) -> set[str]:
        """The outputs by which rows were skipped, in this run or in earlier ones."""
        job = self._about.get("job") or {}
        return {*(job.get("input") or {}).get("skip", []), *earlier.get("skip", [])}

    def _record(self, earlier: Mapping[str, Any] | None = None) -> dict[str, Any]:
        prints = self.fingerprint
        facts: dict[str, Any] = {
            "fingerprint": prints.digest,
            "record": prints.record,
            "versions": versions(),
        }
        # The records of format 1 don't say so.
        facts |= {} if prints.format == 1 else {"format": prints.format}
        if skips := self._skips(earlier or {}):
            facts["skip"] = sorted(skips)
        return facts | {
            "model_sha256": self.fingerprint.record.get("model", {}).get("sha256"),
            "about": self._about,
        }

    def _write(self, name: str, record: Mapping[str, Any]) -> bool:
        return self.output.publish(name, lambda file: write_record(file, record))

    def _check(self, record: Mapping[str, Any]) -> None:
        check_same_job(self.output.url, self.fingerprint, record)

    def _recorded(self, name: str) -> dict[str, Any] | None:
        return read_record(self.output, name)

    def _found(self) -> int:
        """The number of the retry to go on with, as far as what lies there without a record tells.

        Raises OutputError where that is anything but this job's answers."""
        names = [name for name in self.output.list() if not name.startswith((".", f"{ASIDE}/"))]
        own = [n for n in names if n.startswith((f"{RESPONSES}/", f"{WORK}/")) and n.endswith(".parquet")]
        kernels = [name for name in names if name.startswith(f"{KERNELS}/")]
        drafts = [name for name in names if name.startswith(f"{WORK}/") and name.endswith(DRAFT)]
        known = {
            *own,
            *drafts,
            *kernels,
            FORECAST,
            PLANS,
            PROGRESS,
            RECORD,
            REPACK,
            *((REPORT, TRY_OUT, USAGE, SUCCESS) if own else ()),
        }
        if strangers := [name for name in names if name not in known]:
            raise OutputError(
                f"output {self.output.url} holds {strangers[0]}, but no record of a job; "
                "choose an empty folder"
            )
        strangers = [f.shard for f in self._footers(own) if not self._is_own_version(f)]
        if strangers:
            raise OutputError(
                f"output {self.output.url} has answers to another version of {strangers[0]} than its input "
                "has, and no record of the job: restore that version, or choose another output"
            )
        found = self._responses()
        # Where shards are missing, the job's first run has to go on; a retry is of whole jobs.
        return 0 if self._wrong(found) else max((footer.retry for footer in found.values()), default=0)


def _retry(record: Mapping[str, Any]) -> int:
    return int(record.get("retry", 0))


def _carried(record: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """What a later record of the job goes on to say."""
    last = {"last_retry": max(_retry(record), record.get("last_retry", 0))}
    return {name: record[name] for name in names if name in record} | last
