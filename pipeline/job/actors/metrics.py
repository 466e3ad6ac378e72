"""A job's metrics, recorded with Ray, whose dashboard, Prometheus and Grafana show them (docs/metrics.md).

Their names end as vLLM's do where they mean the same.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import ray

JOB = "job_name"
"""The label that all metrics have. Prometheus has a label `job` of its own."""


@dataclass(frozen=True, slots=True)
class Metric:
    """name: as Ray is told. labels: those besides JOB. bounds: of a histogram's buckets."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    about: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()

    @property
    def exported(self) -> str:
        """The name under which Prometheus finds it. Histograms have it with _bucket, _sum and _count."""
        return f"ray_{self.name}{'_total' if self.kind == 'counter' else ''}"


class Recorder:
    """Records the metrics of one process. It raises nothing: no job fails for want of its metrics."""

    def __init__(self, job: str) -> None:
        self._job = {JOB: job}
        self._made: dict[Metric, Any] = {}
        self._counted: dict[tuple[Metric, tuple[str, ...]], float] = {}
        self._lock = threading.Lock()

    def count(self, metric: Metric, total: float, **labels: str) -> None:
        """total: of a counter, since this recorder began."""
        with self._lock, suppress(Exception):
            key = metric, tuple(labels.values())
            new = total - self._counted.get(key, 0.0)
            if new > 0 and (counter := self._of_ray(metric)):
                counter.inc(new, tags=self._job | labels)
                self._counted[key] = total

    def set(self, metric: Metric, value: float) -> None:
        """value: of a gauge."""
        with self._lock, suppress(Exception):
            if gauge := self._of_ray(metric):
                gauge.set(value, tags=self._job)

    def observe(self, metric: Metric, value: float) -> None:
        """value: one more of a histogram's."""
        with self._lock, suppress(Exception):
            if histogram := self._of_ray(metric):
                histogram.observe(value, tags=self._job)

    def set_all(self, values: Mapping[Metric, float]) -> None:
        """values: of gauges."""
        for metric, value in values.items():
            self.set(metric, value)

    def _of_ray(self, metric: Metric) -> Any:
        """Ray's own object; None while no cluster is joined, as Ray would keep it for none."""
        if not ray.is_initialized():
            return None
        if metric not in self._made:
            from ray.util import metrics

            labels = JOB, *metric.labels
            if metric.kind == "histogram":
                bounds = list(metric.bounds)
                made: Any = metrics.Histogram(metric.name, metric.about, boundaries=bounds, tag_keys=labels)
            else:
                kind = metrics.Counter if metric.kind == "counter" else metrics.Gauge
                made = kind(metric.name, metric.about, tag_keys=labels)
            self._made[metric] = made
        return self._made[metric]


def seconds_left(rows: int, rows_per_second: float) -> float:
    """Infinite where no row is answered."""
    return rows / rows_per_second if rows_per_second > 0 else math.inf if rows else 0.0
