"""What the fake workers did, one line of JSON for each event, in the order in which it happened."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class AnswerLog:
    """A file that many processes append to. run: the number of the driver whose workers write."""

    path: Path
    run: int = 0

    @property
    def hurried(self) -> bool:
        """Whether rows take no time any more: what the test wanted to see has happened."""
        return Path(f"{self.path}.hurry").exists()

    def hurry(self) -> None:
        Path(f"{self.path}.hurry").touch()

    def write(self, event: str, **facts: Any) -> None:
        record = {"at": time.time(), "event": event, "run": self.run, "pid": os.getpid(), **facts}
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            # One write for a line: the kernel appends it whole.
            os.write(file, json.dumps(record).encode() + b"\n")
        finally:
            os.close(file)

    def events(self, event: str, run: int | None = None) -> list[dict[str, Any]]:
        """born: a worker began. begun: it took rows. answered: it finished one."""
        if not self.path.exists():
            return []
        lines = self.path.read_text().splitlines()
        found = [json.loads(line) for line in lines if f'"event": "{event}"' in line]
        return [record for record in found if run in (None, record["run"])]

    def answered(self, run: int | None = None) -> Counter[str]:
        """How often each row has been answered."""
        return Counter(record["row"] for record in self.events("answered", run))

    def redone(self, pids: Collection[int] | None = None) -> int:
        """Answers that had to be given again; of those that `pids` had given, if some are named."""
        answers = self.events("answered")
        last = {record["row"]: number for number, record in enumerate(answers)}
        return sum(
            last[record["row"]] != number and (pids is None or record["pid"] in pids)
            for number, record in enumerate(answers)
        )

    def longest_chunk(self) -> int:
        return max(record["rows"] for record in self.events("begun"))

    def longest_silence(self, until: float) -> float:
        """Seconds between two answers, or the last and `until`."""
        times = [*(record["at"] for record in self.events("answered")), until]
        return max((b - a for a, b in pairwise(times)), default=0.0)
