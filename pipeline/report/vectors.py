"""The vectors of an embedding job: their lengths, how many are the same, and where they lie."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.report.reservoir import Reservoir
from pipeline.report.row_batch import RowBatch
from pipeline.report.spread import Spread

MAPPED = 2000
"""Vectors that the map and the nearest pairs are made from."""
MOST_HASHES = 200_000
SHOWN_PAIRS = 6
NEAR = 0.98


@dataclass(frozen=True, slots=True)
class Place:
    """A vector of the sample. group: what it is coloured by, "" where nothing is known."""

    custom_id: str
    group: str
    vector: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two rows whose vectors are nearly, but not quite, the same."""

    first: str
    second: str
    cosine: float


@dataclass(frozen=True, slots=True)
class Map:
    """Principal components. points: shape [places, 2]; explained: each axis's share of the variance."""

    places: list[Place]
    points: NDArray[np.float64]
    explained: tuple[float, float]


class Vectors:
    """Of rows with an embedding. group: the column that the map is coloured by, if any."""

    def __init__(self, group: str | None = None) -> None:
        self.norms = Spread(seed=7)
        self.zeros = 0
        self.dimensions: Counter[int] = Counter()
        self._group = group
        self._copies = _Copies()
        self._sample: Reservoir[Place] = Reservoir(MAPPED, seed=8)

    def add(self, batch: RowBatch) -> None:
        column = batch.vectors
        known = np.flatnonzero(np.asarray(pc.is_valid(column)))
        if not len(known):
            return
        groups = batch.column(self._group) if self._group else pa.nulls(len(batch))
        vectors = _vectors(column.take(pa.array(known)))
        self.dimensions.update(len(vector) for vector in vectors)
        norms = np.array([np.linalg.norm(vector) for vector in vectors])
        self.norms.add(norms)
        self.zeros += int((norms == 0).sum())
        self._copies.add(vectors)

        def place(index: int) -> Place:
            row = int(known[index])
            group = groups[row].as_py()
            name = str(batch.names()[row].as_py())
            return Place(name, "" if group is None else str(group), vectors[index].copy())

        self._sample.offer(len(vectors), place)

    @property
    def count(self) -> int:
        return self.norms.count

    @property
    def duplicates(self) -> int:
        """Vectors that an earlier one equals, bit for bit; an estimate where `estimated`."""
        return round(self.count * self._copies.share)

    @property
    def estimated(self) -> bool:
        return self._copies.estimated

    def map(self) -> Map | None:
        """None where there are fewer than three vectors of the commonest length."""
        places = self._places()
        if len(places) < 3:
            return None
        matrix = np.array([place.vector for place in places], np.float64)
        matrix -= matrix.mean(axis=0)
        left, sizes, _ = np.linalg.svd(matrix, full_matrices=False)
        power = sizes**2 / max(float((sizes**2).sum()), 1e-12)
        return Map(places, left[:, :2] * sizes[:2], (float(power[0]), float(power[1])))

    def nearest(self) -> list[Pair]:
        """The pairs of the sample with the highest cosine of at least NEAR, equal vectors aside."""
        places = self._places()
        if len(places) < 2:
            return []
        matrix = np.array([place.vector for place in places], np.float32)
        matrix /= np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-12)
        cosines = np.triu(matrix @ matrix.T, k=1)
        found = np.argwhere((cosines >= NEAR) & (cosines < 1 - 1e-6))
        best = sorted(found.tolist(), key=lambda pair: -cosines[pair[0], pair[1]])[:SHOWN_PAIRS]
        return [Pair(places[i].custom_id, places[j].custom_id, float(cosines[i, j])) for i, j in best]

    def _places(self) -> list[Place]:
        length = self.dimensions.most_common(1)[0][0] if self.dimensions else 0
        return [place for place in self._sample.items if len(place.vector) == length]


class _Copies:
    """Counts equal vectors in bounded memory: beyond MOST_HASHES, of a random half of all different ones,
    then of a quarter, and so on. A vector's copies share its hash, so they are counted all or not at all."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self._limit = 2**64

    @property
    def estimated(self) -> bool:
        return self._limit < 2**64

    @property
    def share(self) -> float:
        """Of the vectors, those that an earlier one equals."""
        seen = sum(self._counts.values())
        return 1 - len(self._counts) / seen if seen else 0.0

    def add(self, vectors: list[NDArray[np.float32]]) -> None:
        hashes = (int.from_bytes(blake2b(v.tobytes(), digest_size=8).digest()) for v in vectors)
        self._counts.update(found for found in hashes if found < self._limit)
        while len(self._counts) > MOST_HASHES:
            self._limit //= 2
            self._counts = Counter({h: n for h, n in self._counts.items() if h < self._limit})


def _vectors(column: pa.Array) -> list[NDArray[np.float32]]:
    """One vector for each entry; none is null."""
    numbers = np.asarray(column.flatten(), np.float32)
    if pa.types.is_fixed_size_list(column.type):
        return list(numbers.reshape(len(column), -1))
    ends = np.cumsum(np.asarray(pc.list_value_length(column)))
    return np.split(numbers, ends[:-1])
