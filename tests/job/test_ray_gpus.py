"""Workers and the GPUs that Ray gives them. The GPUs need not exist: Ray only counts them."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
import ray

from pipeline.answer.answers import Answers
from pipeline.engine.sequence import Generation
from pipeline.files.storage import Storage
from pipeline.job.actors.cluster import Slot
from pipeline.job.worker import Identity, Worker
from pipeline.output.manifest import Manifest
from pipeline.output.verify import verify
from pipeline.request.rows import Row
from tests.job import test_ray
from tests.job.test_ray import Case, Echo, Echoes


class Sight(Echo):
    """Answers with the GPUs that its process sees, and its share of them."""

    def __init__(self, answers: Answers, slot: Slot) -> None:
        super().__init__(answers)
        self.seen = f"{os.environ['CUDA_VISIBLE_DEVICES']} {slot.gpus:g} {os.getpid()}"

    def answer(self, row: Row, attempts: int) -> dict[str, Any]:
        return self.answers.completion(row, [Generation(self.seen, (1,), "stop", 1, 0)], attempts)


class Sights(Echoes):
    def __call__(self, slot: Slot) -> Worker:
        identity = Identity("fake", self.fingerprint.digest)
        sight = Sight(Answers("fake", self.fingerprint.digest, pa.schema([])), slot)
        manifest = Manifest(Storage.at(self.job.output.path), self.fingerprint)
        return Worker(self.job, identity, manifest, sight)  # type: ignore[arg-type]


@pytest.fixture(scope="module", autouse=True)
def gpus() -> Iterator[None]:
    for module in (test_ray, sys.modules[__name__]):
        ray.cloudpickle.register_pickle_by_value(module)
    ray.init(num_cpus=4, num_gpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield
    ray.shutdown()


@pytest.mark.parametrize(
    ("cluster", "seen"),
    [
        ({}, [("0", "1"), ("1", "1")]),
        ({"gpus_per_actor": 0.5}, [("0", "0.5")] * 2 + [("1", "0.5")] * 2),
        ({"actors": 3}, [("0", "0.5")] * 2 + [("1", "0.5")] * 2),
        ({"gpus_per_actor": 2}, [("0,1", "2")]),
        ({"gpus_per_actor": 0, "actors": 2}, [("", "0")] * 2),
    ],
)
def test_each_worker_sees_its_own_gpus_and_no_others(tmp_path, cluster, seen):
    case = Case(tmp_path)
    for shard in range(12):
        case.shard(f"s{shard}", ["row"] * 40)
    summary = case.run(workers=Sights, cluster=cluster)
    assert (summary.totals.rows, summary.totals.failed) == (480, 0)
    assert verify(str(case.output), deep=True).problems == []
    texts = {row["text"] for shard in range(12) for row in case.answers(f"s{shard}")}
    workers = Counter(tuple(text.split(" ")[:2]) for text in texts)
    assert workers <= Counter(seen)
