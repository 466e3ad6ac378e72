"""What a worker is given at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pipeline.input.shards import Chunk
from pipeline.job.backlog import weight


@dataclass(frozen=True, slots=True)
class Assignment:
    """Chunks that one worker answers and commits; together they hold up to CHUNK_ROWS rows.

    attempt: how often these rows have been handed out, this time included.
    alone: the worker holds nothing else meanwhile.
    exclusive: nobody else holds anything meanwhile, as its rows may be what fills the memory.
    deaths: proven workers that died while this single row was all they held; died_on: their machines.
    condemned: the verdict on such a row: answer it with `worker_crashed`, don't run it.
    control: rows that were answered before. Their answers prove the worker, and are not committed.
    """

    id: int
    chunks: tuple[Chunk, ...]
    attempt: int = 1
    alone: bool = False
    exclusive: bool = False
    deaths: int = 0
    died_on: frozenset[str] = frozenset()
    condemned: bool = False
    control: bool = False

    @property
    def rows(self) -> int:
        return sum(chunk.rows for chunk in self.chunks)

    @property
    def weight(self) -> int:
        return sum(weight(chunk) for chunk in self.chunks)

    @property
    def is_trial(self) -> bool:
        """Whether it is so small that a death speaks for itself: a single row, or one answered before."""
        return self.control or (self.alone and self.weight == 1)


def groups(chunks: Iterable[Chunk], size: int) -> Iterator[tuple[Chunk, ...]]:
    """Parts of `chunks`, in order, in groups of up to `size` rows."""
    group: list[Chunk] = []
    for chunk in chunks:
        for start in range(chunk.start, max(chunk.stop, chunk.start + 1), size):
            part = Chunk(chunk.shard, start, min(start + size, chunk.stop))
            if group and sum(map(weight, group)) + weight(part) > size:
                yield tuple(group)
                group = []
            group.append(part)
    yield tuple(group)
