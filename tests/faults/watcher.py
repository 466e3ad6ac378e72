"""A reader that opens each response file as soon as it appears, as somebody downstream might."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import OutputError
from pipeline.output.footer import read_footer

State = tuple[int, int, int]


class Watcher:
    """Reads `responses/` over and over. problems: what no reader should ever have seen."""

    def __init__(self, output: Path, rows: dict[str, int]) -> None:
        """rows: how many each file must have, by its name below `responses/`."""
        self._folder, self._rows = output / "responses", rows
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.seen: dict[str, State] = {}
        self.problems: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._end.wait(0.003):
            self._look()

    def _look(self) -> None:
        found = dict(self._files())
        for name in self.seen.keys() - found.keys():
            self._note(f"{name} went away again")
            del self.seen[name]
        for name, state in found.items():
            if self.seen.get(name) != state:
                if name in self.seen:
                    self._note(f"{name} changed after it had appeared")
                self.seen[name] = state
                self._open(name)

    def _files(self) -> list[tuple[str, State]]:
        found = []
        for folder, _, names in os.walk(self._folder):
            for name in names:
                path = Path(folder, name)
                status = path.stat()
                state = (status.st_ino, status.st_size, status.st_mtime_ns)
                found.append((str(path.relative_to(self._folder)), state))
        return found

    def _open(self, name: str) -> None:
        try:
            with pq.ParquetFile(self._folder / name) as parquet:
                footer, rows = read_footer(parquet), parquet.read(use_threads=False).num_rows
        except (OutputError, pa.ArrowException, OSError) as error:
            self._note(f"{name} can't be read: {error}")
            return
        if not rows == footer.stop == self._rows.get(name):
            self._note(f"{name} has {rows} rows of {self._rows.get(name)}")

    def _note(self, problem: str) -> None:
        self.problems.append(problem)
