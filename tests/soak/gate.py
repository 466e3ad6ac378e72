"""Where every operation on storage passes: the fault strikes, the deed is done, the witness looks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from tests.soak.weather import Weather
from tests.soak.witness import Witness
from tests.soak.world import World

T = TypeVar("T")

CHANGES = {"link", "replace", "unlink", "rmdir", "write", "put", "delete"}


class Gate:
    """Lets the processes of a world through to their output, and others untouched."""

    def __init__(self, world: World, weather: Weather, witness: Witness) -> None:
        self.world, self._weather, self._witness = world, weather, witness

    @property
    def is_for_caller(self) -> bool:
        """Whether faults may strike the calling thread."""
        here = self.world.here
        return here is not None and here.simulated

    def perform(self, operation: str, name: str, action: Callable[[], T]) -> T:
        """An operation on the file `name` of the output, and what befalls it."""
        if not self.is_for_caller:
            return action()
        self._weather.before(operation, name)
        result = action()
        if operation in CHANGES:
            self._witness.see(operation, name)
            self._weather.after(operation)
        return result
