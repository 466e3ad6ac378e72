"""What belongs to one seed: its world, its weather, its job, and the witness of what becomes of it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import pipeline.job.backlog
import pipeline.job.coordinator
from pipeline.files.aside import temporary_folder
from tests.soak.case import Case
from tests.soak.disk import Disk
from tests.soak.gate import Gate
from tests.soak.store import Store
from tests.soak.weather import Weather
from tests.soak.witness import Witness
from tests.soak.world import World


class Scene:
    """folder: an empty one, for the input and, unless the seed chooses the object store, the output."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.world = World(seed)
        chance = self.world.random
        self.folder = folder
        self.on_disk = chance.random() < 0.65
        # Small chunks for small shards: there are as many borders as in a large job.
        self.sizes = {
            "FEWEST_ROWS": chance.choice([1, 4, 16]),
            "CHUNK_ROWS": chance.choice([16, 24, 64]),
        }
        self.suspects = chance.choice([2, 4, 16])
        self.tiny = chance.random() < 0.4
        output = str(folder / "disk" / "out") if self.on_disk else f"soak://bucket/{seed}"
        self.case = Case(folder, output, chance, self.tiny)
        self.weather = Weather(self.world)
        self.witness = Witness(self.world, self.case)
        self._gate = Gate(self.world, self.weather, self.witness)

    @contextmanager
    def set(self) -> Iterator[None]:
        """Inside, the pipeline plays on this scene."""
        disk = self.folder / "disk"
        asides = disk / "tmp"
        asides.mkdir(parents=True)
        temporary_folder.cache_clear()
        Store.reset(Store._strip_protocol(self.case.output), self._gate)
        with (
            Disk(disk / "out" if self.on_disk else disk, self._gate).mounted(),
            patch.object(tempfile, "tempdir", str(asides)),
            patch.multiple(pipeline.job.backlog, **self.sizes),
            patch.object(pipeline.job.coordinator, "SUSPECT_ROWS", self.suspects),
        ):
            yield
        Store.reset("", None)
        temporary_folder.cache_clear()
