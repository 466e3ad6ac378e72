"""A job before it is worked on: its input listed and planned, its settings checked, its output looked at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.answer.shared_schema import shared_schema
from pipeline.config import JobConfig
from pipeline.errors import ConfigError, InputError, ModelError
from pipeline.files.hub import at_commit
from pipeline.files.storage import Storage
from pipeline.input.shards import ShardPlan, list_input
from pipeline.job.actors.ray_cluster import RayCluster
from pipeline.job.worker import check_input
from pipeline.model.models import LocalModel, fetch_model
from pipeline.output.committed import CommittedRows
from pipeline.output.fingerprint import Fingerprint
from pipeline.output.manifest import Manifest
from pipeline.plan.corpus import Corpus, Earlier
from pipeline.plan.kept_plans import kept_plans
from pipeline.plan.planned import Tell, plan_all
from pipeline.plan.preflight import check_model


def silent(line: str) -> None:
    """Tells nobody."""


@dataclass(frozen=True)
class OpenJob:
    """plans: of all shards, in the order of their names. note: on files that aren't read; "" for none."""

    config: JobConfig
    plans: list[ShardPlan]
    manifest: Manifest
    cluster: RayCluster
    note: str

    @property
    def rows(self) -> int:
        return sum(plan.rows for plan in self.plans)


@contextmanager
def opened(
    job: JobConfig, model: LocalModel | None = None, tell: Tell = silent, retries: bool = False
) -> Iterator[OpenJob]:
    """A job that may be worked on inside.

    model: a stand-in for the job's own. retries: whether it is worked on as it was recorded, without the
    shards that its input has gained. Raises JobError.
    """
    job = pinned(anchored(job))
    listing = list_input(job.input.path, job.output.path)
    if listing.note:
        tell(listing.note)
    _check_skipped(job)
    fetched = model or fetch_model(job.model)
    earlier = Earlier.at(Storage.at(job.output.path))
    with RayCluster(job.cluster) as cluster:
        # The shards that are answered are not read again, unless failed rows of them are.
        finished = {} if retries else earlier.finished(listing.shards)
        known = kept_plans(earlier.output, listing.shards) | finished
        plans = plan_all(listing.shards, cluster, known, tell)
        corpus = earlier.merged(plans, job.input.changed, retries)
        _check(job, corpus.planned)
        manifest = manifest_of(job, fetched, corpus, earlier)
        if model is None:
            check_model(job, fetched, manifest.fingerprint)
        for note in corpus.notes:
            tell(note)
        with withdrawn(manifest):
            yield OpenJob(job, corpus.plans, manifest, cluster, listing.note)


def anchored(job: JobConfig) -> JobConfig:
    """The job with its local paths made absolute: workers start in folders of their own."""

    def path(section: str, **others: object) -> dict[str, object]:
        absolute = _absolute(getattr(job, section).path)
        return {section: getattr(job, section).model_copy(update={"path": absolute, **others})}

    skip = tuple(map(_absolute, job.input.skipped))
    return job.model_copy(update=path("model") | path("input", skip=skip) | path("output"))


def _absolute(path: str) -> str:
    return path if "://" in path or "::" in path else str(Path(path).expanduser().absolute())


def _check_skipped(job: JobConfig) -> None:
    """Raises ConfigError or OutputError where `input.skip` names what has no answers of others."""
    for url in job.input.skipped:
        if Storage.at(url).address() == Storage.at(job.output.path).address():
            raise ConfigError(
                f"input.skip: {url} is the job's own output: what it has isn't done again anyway"
            )
        CommittedRows.at(url)


def _check(job: JobConfig, plans: list[ShardPlan]) -> None:
    """Refuses shards whose columns make no request, before any worker is started."""
    for plan in {(plan.columns, *plan.partition): plan for plan in reversed(plans)}.values():
        check_input(job, plan)


def manifest_of(job: JobConfig, model: LocalModel, corpus: Corpus, earlier: Earlier) -> Manifest:
    about = {"name": job.name, "input": job.input.path, "job": job.model_dump(mode="json")}
    prints = Fingerprint.of(job, model.sha256, [], _parsed(job, corpus, earlier))
    prints = prints.with_shards(corpus.entries, earlier.format)
    return Manifest(earlier.output, prints, about, earlier.seen)


def _parsed(job: JobConfig, corpus: Corpus, earlier: Earlier) -> str | None:
    """What the column `parsed` is made by. An output stays as it was begun, whatever shards it gains."""
    known = earlier.parsed(job.output.parsed)
    if known:
        return known[0]
    shared = shared_schema(job, corpus.planned)
    return shared.to_json() if shared else None


def pinned(job: JobConfig) -> JobConfig:
    """The job with the commit of its input on the Hub: all workers, and a retry, read the same files.

    Raises InputError."""
    url = job.input.path
    if not url.startswith("hf://"):
        return job
    folder = Storage.at(url)
    path = at_commit(url, folder.fs, folder.root)
    return job.model_copy(update={"input": job.input.model_copy(update={"path": path})})


@contextmanager
def withdrawn(manifest: Manifest) -> Iterator[None]:
    """A job that turns out to be wrong before anything is answered leaves its output as it was."""
    try:
        yield
    except (ConfigError, InputError, ModelError):
        manifest.withdraw()
        raise
