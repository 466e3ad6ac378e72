"""What a job tells Ray's metrics, and the dashboard and the page that show them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.util import metrics as rays

from pipeline.failures import Failures, Reason
from pipeline.job.actors.job_metrics import FAILED, JOB_METRICS, JobMetrics
from pipeline.job.actors.metrics import Metric, Recorder
from pipeline.job.actors.worker_metrics import WORKER_METRICS, WorkerMetrics
from pipeline.pulse import Pulse
from pipeline.report.progress import Rates
from pipeline.tally import Tally

ALL: tuple[Metric, ...] = (*WORKER_METRICS, *JOB_METRICS)
DOCS = Path(__file__).parents[2] / "docs"
NAMES = re.compile(r"ray_nightherd_\w+")


class Told:
    """In place of Ray's metrics: what each series was told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.values: dict[tuple[str, ...], float] = {}
        monkeypatch.setattr(ray, "is_initialized", lambda: True)
        for name in ("Counter", "Gauge", "Histogram"):
            monkeypatch.setattr(rays, name, self.series)

    def series(self, name: str, about: str, boundaries: Any = (), tag_keys: tuple[str, ...] = ()) -> Any:
        told = self

        class Series:
            def inc(self, value: float, tags: dict[str, str]) -> None:
                assert value > 0
                self.set(told.values.get(self.key(tags), 0) + value, tags)

            def set(self, value: float, tags: dict[str, str]) -> None:
                told.values[self.key(tags)] = value

            def observe(self, value: float, tags: dict[str, str]) -> None:
                assert sorted(boundaries) == list(boundaries)
                self.set(value, tags)

            def key(self, tags: dict[str, str]) -> tuple[str, ...]:
                assert tuple(tags) == tag_keys
                return name, *tags.values()

        return Series()

    def of(self, name: str, *labels: str) -> float:
        return self.values["nightherd_" + name, "night", *labels]


@pytest.fixture
def told(monkeypatch) -> Told:
    return Told(monkeypatch)


def test_a_worker_tells_what_its_life_signs_say(told: Told) -> None:
    worker = WorkerMetrics("night")
    worker.beat(Pulse(prompt_tokens=5, completion_tokens=2, running=3, waiting=7, held_cells=0.5))
    worker.beat(Pulse(prompt_tokens=5, completion_tokens=9, cached_tokens=4, running=1, held_cells=0.25))
    worker.committed(12.5)
    assert told.of("prompt_tokens") == 5
    assert told.of("generation_tokens") == 9
    assert told.of("prefix_cache_hits") == 4
    assert (told.of("num_requests_running"), told.of("num_requests_waiting")) == (1, 0)
    assert told.of("kv_cache_usage_perc") == 0.25
    assert told.of("chunk_seconds") == 12.5


def test_the_driver_tells_of_the_job(told: Told) -> None:
    now = [0.0]
    job = JobMetrics("night", lambda: now[0])
    errors = Failures.of(
        [Reason("invalid_request", "why", 2, "s", "x"), Reason("server_error", "", 1, "s", "y")]
    )
    run = Tally(rows=10, succeeded=7, failed=3, attempts=14, errors=errors)
    job.show(Tally(), {}, 0, 100, Rates(), 2)
    assert told.of("estimated_seconds_left") == float("inf")
    job.show(run, {"rows": 1}, 10, 100, Rates(3.0, 40.0, 50.0), 2)
    assert told.of("rows_left") == 100, "it is told once a second, no more"
    now[0] = 1.0
    job.show(run, {"rows": 1}, 10, 100, Rates(3.0, 40.0, 50.0), 2)
    assert (told.of("rows_done"), told.of("rows_left"), told.of("workers")) == (10, 90, 2)
    assert (told.of("estimated_seconds_left"), told.of("rows_per_second")) == (30, 3)
    assert told.of("avg_prompt_throughput_toks_per_s") == 40
    assert told.of("avg_generation_throughput_toks_per_s") == 50
    assert (told.of("rows_succeeded"), told.of("row_retries")) == (7, 4)
    assert (told.of("rows_failed", "invalid_request"), told.of("rows_failed", "server_error")) == (2, 1)
    assert told.of("worker_deaths", "rows") == 1
    job.record(run, {"rows": 1, "memory": 2})
    assert (told.of("worker_deaths", "rows"), told.of("worker_deaths", "memory")) == (1, 2)
    assert told.of("rows_succeeded") == 7


def test_metrics_that_fail_harm_nobody(monkeypatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no metrics agent")

    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    for name in ("Counter", "Gauge", "Histogram"):
        monkeypatch.setattr(rays, name, broken)
    WorkerMetrics("night").beat(Pulse(prompt_tokens=5))
    WorkerMetrics("night").committed(1.0)
    JobMetrics("night").show(Tally(succeeded=1), {}, 1, 2, Rates(), 1)


def test_nothing_is_recorded_without_a_cluster(monkeypatch) -> None:
    def made(*_: object, **__: object) -> None:
        raise AssertionError("a metric of no cluster")

    monkeypatch.setattr(rays, "Gauge", made)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    recorder = Recorder("night")
    recorder.set(JOB_METRICS[-1], 1.0)
    recorder.count(FAILED, 1, code="server_error")


def test_names_are_what_prometheus_takes_and_differ() -> None:
    names = [metric.exported for metric in ALL]
    assert len(set(names)) == len(names)
    assert all(NAMES.fullmatch(name) and ":" not in name for name in names)


def shown_by(metric: Metric) -> set[str]:
    """The names of its series in Prometheus."""
    ends = ("_bucket", "_sum", "_count") if metric.kind == "histogram" else ("",)
    return {metric.exported + end for end in ends}


def expressions(panel: dict[str, Any]) -> list[str]:
    return [target["expr"] for target in panel["targets"]]


def test_the_dashboard_asks_for_metrics_that_exist_and_for_all_of_them() -> None:
    dashboard = json.loads((DOCS / "grafana.json").read_text())
    queries = [query for panel in dashboard["panels"] for query in expressions(panel)]
    asked = {name for query in queries for name in NAMES.findall(query)}
    series = [shown_by(metric) for metric in ALL]
    assert asked <= set().union(*series)
    assert all(asked & names for names in series)
    assert all(NAMES.search(query) and 'job_name=~"$job_name"' in query for query in queries)
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    assert {"datasource", "job_name"} == variables.keys()
    assert set(NAMES.findall(variables["job_name"]["definition"])) <= asked
    labels = {label for query in queries for label in re.findall(r"by \((\w+)\)", query)}
    ours = {label for metric in ALL for label in metric.labels}
    assert labels <= ours | {"job_name", "NodeAddress", "le"}


def test_no_two_panels_lie_upon_each_other() -> None:
    panels = json.loads((DOCS / "grafana.json").read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(places)) == len(places)
    assert all(0 <= x < 24 for x, _ in places)


def test_the_page_has_a_line_for_each_metric_and_none_for_others() -> None:
    lines = re.findall(
        r"(?m)^\| `(ray_nightherd_\w+)` \| (.*?) \| (.*?) \|$", (DOCS / "metrics.md").read_text()
    )
    kinds = [" ".join([metric.kind, *(f"`{label}`" for label in metric.labels)]) for metric in ALL]
    assert lines == [(metric.exported, kind, metric.about) for metric, kind in zip(ALL, kinds, strict=True)]
