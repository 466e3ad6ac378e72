"""What Prometheus is told. Names are vLLM's where they mean the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pipeline.answer.answer import Usage
from pipeline.pulse import Pulse
from pipeline.tally import Tally

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_BETWEEN = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)

Beat = Callable[[], tuple[str, Pulse] | None]
"""The model's id and the engine's life signs; None while there is no engine."""


class Metrics:
    """One registry for each app."""

    def __init__(self, beat: Beat) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Engine(beat))
        self._first = self._histogram("vllm:time_to_first_token_seconds", "Seconds to the first token.")
        self._between = self._histogram(
            "vllm:inter_token_latency_seconds", "Seconds between tokens of a stream.", _BETWEEN
        )
        self._whole = self._histogram("vllm:e2e_request_latency_seconds", "Seconds of a request.")
        self._finished = self._counter("vllm:request_success", "Answers.", "finished_reason")
        self._requests = self._counter("nightherd:http_requests", "Requests.", "route", "status")
        self._key_tokens = self._counter("nightherd:key_tokens", "Tokens of each key.", "key", "kind")
        self._key_requests = self._counter("nightherd:key_requests", "Answers to each key.", "key")

    def requested(self, route: str, status: int) -> None:
        self._requests.labels(route, str(status)).inc()

    def first_token(self, seconds: float) -> None:
        self._first.observe(seconds)

    def next_token(self, seconds: float) -> None:
        self._between.observe(seconds)

    def answered(self, key: str, usage: Usage, reasons: Iterable[str], seconds: float) -> None:
        """reasons: why each choice ended. seconds: of the request as a whole."""
        self._whole.observe(seconds)
        for reason in reasons:
            self._finished.labels(reason).inc()
        self._key_requests.labels(key).inc()
        self._key_tokens.labels(key, "prompt").inc(usage.prompt_tokens)
        self._key_tokens.labels(key, "cached").inc(usage.cached_tokens)
        self._key_tokens.labels(key, "completion").inc(usage.completion_tokens)

    def computed(self, key: str, tally: Tally) -> None:
        """Batch rows of a key."""
        self._key_requests.labels(key).inc(tally.succeeded)
        self._key_tokens.labels(key, "prompt").inc(tally.prompt_tokens)
        self._key_tokens.labels(key, "cached").inc(tally.cached_tokens)
        self._key_tokens.labels(key, "completion").inc(tally.completion_tokens)

    def text(self) -> bytes:
        """In Prometheus's text format."""
        return generate_latest(self._registry)

    def _histogram(self, name: str, about: str, buckets: tuple[float, ...] = _SECONDS) -> Histogram:
        return Histogram(name, about, registry=self._registry, buckets=buckets)

    def _counter(self, name: str, about: str, *labels: str) -> Counter:
        return Counter(name, about, labels, registry=self._registry)


class _Engine(Collector):
    """The engine's own counts, asked for when Prometheus asks. They hold what batches do, too."""

    def __init__(self, beat: Beat) -> None:
        self._beat = beat

    def collect(self) -> Iterator[Metric]:
        beat = self._beat()
        if beat is None:
            return
        model, pulse = beat
        asked = pulse.prompt_tokens + pulse.cached_tokens
        counts = {
            "vllm:prompt_tokens": ("Tokens of prompts.", asked),
            "vllm:generation_tokens": ("Tokens of answers.", pulse.completion_tokens),
            "llamacpp:prompt_tokens": ("Tokens of prompts that were computed.", pulse.prompt_tokens),
            "llamacpp:tokens_predicted": ("Tokens of answers.", pulse.completion_tokens),
            "vllm:prefix_cache_queries": ("Tokens of prompts.", asked),
            "vllm:prefix_cache_hits": ("Of them, those that were not computed.", pulse.cached_tokens),
        }
        for name, (about, value) in counts.items():
            family = CounterMetricFamily(name, about, labels=["model_name"])
            family.add_metric([model], value)
            yield family
        now: dict[str, tuple[str, float]] = {
            "vllm:num_requests_running": ("Sequences that are being answered.", pulse.running),
            "vllm:num_requests_waiting": ("Sequences that wait for a slot.", pulse.waiting),
            "vllm:kv_cache_usage_perc": (
                "The part of the cells, from 0 to 1, that running sequences hold or will come to need.",
                pulse.held_cells,
            ),
        }
        for name, (meaning, share) in now.items():
            gauge = GaugeMetricFamily(name, meaning, labels=["model_name"])
            gauge.add_metric([model], share)
            yield gauge
