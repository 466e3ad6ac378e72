"""One job: its input, its settings, and what each of its rows has to become."""

from __future__ import annotations

import json
import os
import random
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config import JobConfig
from pipeline.files.storage import Storage
from pipeline.input.shards import list_shards, plan_shard
from pipeline.output.fingerprint import Fingerprint
from pipeline.output.sources import entry_of, source_of
from pipeline.plan.corpus import Corpus, Earlier
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
        """prompts: of the shards that there are. versions: of all that have been, by name and source."""
        self.input, self.output = folder / "in", output
        self._chance, self._tiny = chance, tiny
        self.prompts: dict[str, list[str]] = {}
        self.versions: dict[tuple[str, str], list[str]] = {}
        self._clock = 1_700_000_000
        self.attempts = chance.choice([1, 2, 3, 3, 3, 4])
        sizes = [self._size() for _ in range(chance.choice([1, 1, 2, 3, 4, 8]))]
        harm = chance.choice([0.0, 0.0, 0.01, 0.05])
        shards = [
            [self._prompt(1000 * (number + 1) + row, harm) for row in range(rows)]
            for number, rows in enumerate(sizes)
        ]
        self._soften(shards)
        for number, prompts in enumerate(shards):
            self._write(self._name(number), prompts)
        self._written = len(shards)

    @cached_property
    def job(self) -> JobConfig:
        return JobConfig.model_validate(
            {
                "model": {"path": "fake.gguf"},
                "input": {"path": str(self.input), "changed": "redo"},
                "output": {"path": self.output},
                "retry": {"max_attempts": self.attempts, "max_failures": 1},
            }
        )

    @property
    def sources(self) -> set[tuple[str, str]]:
        """The name and the source of each shard, in the version that there is now."""
        return {(p.shard.name, source_of(entry_of(p))) for p in map(plan_shard, list_shards(str(self.input)))}

    def corpus(self, retries: bool) -> tuple[Earlier, Corpus]:
        """What a driver finds as it begins: the output, and the job's shards."""
        earlier = Earlier.at(Storage.at(self.output))
        shards = list_shards(str(self.input))
        finished = {} if retries else earlier.finished(shards)
        plans = [finished.get(shard) or plan_shard(shard) for shard in shards]
        return earlier, earlier.merged(plans, self.job.input.changed, retries)

    def fingerprint(self, corpus: Corpus, earlier: Earlier) -> Fingerprint:
        return Fingerprint.of(self.job, "0" * 64, []).with_shards(corpus.entries, earlier.format)

    @property
    def about(self) -> dict[str, Any]:
        return {"name": "soak", "input": str(self.input), "job": self.job.model_dump(mode="json")}

    def change(self) -> str:
        """A new shard, a new version of one, or one less; which it was."""
        name, kind = (
            self._chance.choice(sorted(self.prompts)),
            self._chance.choice(["new", "changed", "gone"]),
        )
        if kind == "gone" and len(self.prompts) > 1:
            (self.input / name).unlink()
            del self.prompts[name]
            return f"gone {name}"
        name = name if kind == "changed" else self._name(self._written)
        # The first rows of all others may be bad ones.
        prompts = [
            self._prompt(1000 * (self._written + 1) + row, 0.02 * (row > 0)) for row in range(self._size())
        ]
        self._write(name, prompts or [str(1000 * (self._written + 1))])
        self._written += 1
        return f"{kind} {name}"

    @staticmethod
    def _soften(shards: list[list[str]]) -> None:
        """Where no row can be answered, deaths are taken for the machine's: one of them is made sound."""
        if all(Sum.of(prompt).order for prompts in shards for prompt in prompts):
            for prompts in shards[:]:
                prompts[:1] = [str(Sum.of(prompt).number) for prompt in prompts[:1]]

    def _size(self) -> int:
        sizes = [0, 1, 2, 7, 15] if self._tiny else [0, 1, 5, 16, 40, 90]
        return self._chance.choice(sizes) + self._chance.randrange(3)

    def _prompt(self, number: int, harm: float) -> str:
        order = self._chance.choice(ORDERS) if self._chance.random() < harm else ""
        # With one attempt only, it would be chance what becomes of it.
        order = "" if order == "ONCE FLAKY" and self.attempts == 1 else order
        return f"{number} {order}".strip()

    def _name(self, number: int) -> str:
        kind = self._chance.choice([".parquet", ".parquet", ".parquet", ".jsonl"])
        return f"{self._chance.choice(['', '', 'deep/er/'])}s{number}{kind}"

    def _write(self, name: str, prompts: list[str]) -> None:
        names = [name_of(Sum.of(prompt).number) for prompt in prompts]
        path = self.input / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".jsonl":
            lines = [{"custom_id": n, "prompt": prompt} for n, prompt in zip(names, prompts, strict=True)]
            path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        else:
            table = pa.table([names, prompts], schema=SCHEMA)
            pq.write_table(table, path, row_group_size=self._chance.choice([3, 16, 1000]))
        # A clock of its own, for a seed to replay.
        self._clock += 1
        os.utime(path, (self._clock, self._clock))
        self.prompts[name] = prompts
        plan = plan_shard(next(shard for shard in list_shards(str(self.input)) if shard.name == name))
        self.versions[name, source_of(entry_of(plan))] = prompts
