"""What a worker's process tells Ray of its engine, at each life sign."""

from __future__ import annotations

from pipeline.job.actors.metrics import Metric, Recorder
from pipeline.pulse import Pulse

PROMPT = Metric("nightherd_prompt_tokens", "counter", "Tokens of prompts that were computed.")
GENERATION = Metric("nightherd_generation_tokens", "counter", "Tokens of answers.")
CACHE_HITS = Metric(
    "nightherd_prefix_cache_hits", "counter", "Tokens of prompts that were taken over from other rows."
)
RUNNING = Metric("nightherd_num_requests_running", "gauge", "Sequences that are being answered.")
WAITING = Metric("nightherd_num_requests_waiting", "gauge", "Sequences that wait for a slot.")
CACHE_USAGE = Metric(
    "nightherd_kv_cache_usage_perc",
    "gauge",
    "The part of the KV cache that sequences hold or will come to need; 1 is full.",
)
CHUNK = Metric(
    "nightherd_chunk_seconds",
    "histogram",
    "Seconds from a chunk's first row read to its commit.",
    bounds=(0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800),
)

WORKER_METRICS = (PROMPT, GENERATION, CACHE_HITS, RUNNING, WAITING, CACHE_USAGE, CHUNK)


class WorkerMetrics:
    """Ray adds to each of them which worker and machine it is from."""

    def __init__(self, job: str) -> None:
        self._recorder = Recorder(job)

    def beat(self, pulse: Pulse) -> None:
        recorder = self._recorder
        recorder.count(PROMPT, pulse.prompt_tokens)
        recorder.count(GENERATION, pulse.completion_tokens)
        recorder.count(CACHE_HITS, pulse.cached_tokens)
        recorder.set_all({RUNNING: pulse.running, WAITING: pulse.waiting, CACHE_USAGE: pulse.held_cells})

    def committed(self, seconds: float) -> None:
        """seconds: that a chunk took."""
        self._recorder.observe(CHUNK, seconds)
