"""One job: its input, its settings, and what each of its rows has to become."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config import JobConfig
from pipeline.files.storage import Storage
from pipeline.input.shards import ShardPlan, list_shards, plan_shard
from pipeline.output.fingerprint import Fingerprint
from pipeline.output.manifest import Manifest
from tests.faults.arithmetic import Sum

SCHEMA = pa.schema([("custom_id", pa.string()), ("prompt", pa.string())])
ORDERS = ("POISON", "PASSING POISON", "FLAKY", "ONCE FLAKY", "BAD")
"""What may befall a row, beside being answered. PASSING: only until the job is retried.

POISON kills the worker. FLAKY fails until the job is retried, ONCE FLAKY only at its first attempt; BAD
fails always.
"""


@dataclass(frozen=True)
class Fate:
    """What a row becomes: the answer to its task, or an error of this code."""

    task: Sum
    code: str | None

    @classmethod
    def of(cls, prompt: str, phase: int) -> Fate:
        """phase: the number of the retry that has gone over the row, 0 for none."""
        task = Sum.of(prompt)
        codes = {"POISON": "worker_crashed", "BAD": "invalid_request"}
        if phase == 0:
            codes |= {"PASSING POISON": "worker_crashed"} | ({} if task.once else {"FLAKY": "server_error"})
        return cls(task, codes.get(task.order))

    def is_fulfilled(self, row: dict[str, Any]) -> bool:
        """Whether this is the row, and what had to become of it."""
        if row["custom_id"] != name_of(self.task.number):
            return False
        if self.code:
            return (row["error"] or {}).get("code") == self.code and row["text"] is row["usage"] is None
        return row["error"] is None and row["text"] == self.task.text and row["usage"] == self._usage()

    def _usage(self) -> dict[str, Any]:
        prompt, completion = self.task.prompt_tokens, self.task.completion_tokens
        total = {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
        }
        return total | {"prompt_tokens_details": {"cached_tokens": self.task.cached_tokens}}


def name_of(number: int) -> str:
    """The custom_id of a row."""
    return f"row-{number}"


class Case:
    """Rows are few and shards are many, as it's the borders between them that matter."""

    def __init__(self, folder: Path, output: str, chance: random.Random, tiny: bool) -> None:
        self.input, self.output = folder / "in", output
        self._chance = chance
        self.prompts: dict[str, list[str]] = {}
        self.attempts = chance.choice([1, 2, 3, 3, 3, 4])
        sizes = [self._size(tiny) for _ in range(chance.choice([1, 1, 2, 3, 4, 8]))]
        harm = chance.choice([0.0, 0.0, 0.01, 0.05])
        shards = [
            [self._prompt(1000 * (number + 1) + row, harm) for row in range(rows)]
            for number, rows in enumerate(sizes)
        ]
        self._soften(shards)
        for number, prompts in enumerate(shards):
            self._shard(number, prompts)

    @cached_property
    def job(self) -> JobConfig:
        return JobConfig.model_validate(
            {
                "model": {"path": "fake.gguf"},
                "input": {"path": str(self.input)},
                "output": {"path": self.output},
                "retry": {"max_attempts": self.attempts, "max_failures": 1},
            }
        )

    @cached_property
    def plans(self) -> list[ShardPlan]:
        return [plan_shard(shard) for shard in list_shards(str(self.input))]

    @cached_property
    def fingerprint(self) -> Fingerprint:
        return Fingerprint.of(self.job, "0" * 64, self.plans)

    def manifest(self) -> Manifest:
        about = {"name": "soak", "input": str(self.input), "job": self.job.model_dump(mode="json")}
        return Manifest(Storage.at(self.output), self.fingerprint, about)

    def rows(self) -> int:
        return sum(map(len, self.prompts.values()))

    @staticmethod
    def _soften(shards: list[list[str]]) -> None:
        """Where no row can be answered, deaths are taken for the machine's: one of them is made sound."""
        if all(Sum.of(prompt).order for prompts in shards for prompt in prompts):
            for prompts in shards[:]:
                prompts[:1] = [str(Sum.of(prompt).number) for prompt in prompts[:1]]

    def _size(self, tiny: bool) -> int:
        sizes = [0, 1, 2, 7, 15] if tiny else [0, 1, 5, 16, 40, 90]
        return self._chance.choice(sizes) + self._chance.randrange(3)

    def _prompt(self, number: int, harm: float) -> str:
        order = self._chance.choice(ORDERS) if self._chance.random() < harm else ""
        # With one attempt only, it would be chance what becomes of it.
        order = "" if order == "ONCE FLAKY" and self.attempts == 1 else order
        return f"{number} {order}".strip()

    def _shard(self, number: int, prompts: list[str]) -> None:
        names = [name_of(Sum.of(prompt).number) for prompt in prompts]
        kind = self._chance.choice([".parquet", ".parquet", ".parquet", ".jsonl"])
        name = f"{self._chance.choice(['', '', 'deep/er/'])}s{number}{kind}"
        path = self.input / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".jsonl":
            lines = [{"custom_id": n, "prompt": prompt} for n, prompt in zip(names, prompts, strict=True)]
            path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        else:
            table = pa.table([names, prompts], schema=SCHEMA)
            pq.write_table(table, path, row_group_size=self._chance.choice([3, 16, 1000]))
        self.prompts[name] = prompts
