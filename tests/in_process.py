"""What a run needs of a pool and an assembly, for tests whose workers answer in their own process."""

from __future__ import annotations

from pipeline.input.shards import ShardPlan
from pipeline.output.manifest import Manifest
from pipeline.pulse import Pulse
from pipeline.tally import Tally


class InProcess:
    """One machine of unknown kernels; finished shards are put together at once."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.idle = True
        self._assembled: list[Tally] = []

    @property
    def machines(self) -> dict[str, str]:
        return {"machine": "this machine"}

    @property
    def kernels(self) -> dict[str, str]:
        return {}

    def avoid(self, machine: str) -> None: ...

    def end(self) -> None: ...

    def pulse(self) -> Pulse:
        return Pulse()

    def put(self, plan: ShardPlan) -> None:
        self._assembled.append(self.manifest.commit_shard(plan))

    def done(self) -> list[Tally]:
        done, self._assembled = self._assembled, []
        return done
