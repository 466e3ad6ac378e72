"""Whose fault a death is: a machine's, until it has answered rows; only then it may be a row's.

A llama.cpp that dies on this machine, whatever it is asked, looks like rows that kill. So a death speaks
against a row only if the worker that died had answered another row before. After a death, the next new
worker on that machine proves itself first, on a single row. A machine on which TRIALS such workers die one
after the other is barred: it gets no more work.
"""

from __future__ import annotations

from dataclasses import dataclass

TRIALS = 4
"""Workers that may die in a row on one machine, each at the first row it was given, before it is barred."""


@dataclass(slots=True)
class _Machine:
    """answered: whether rows have been answered here. doubted: whether a worker has died here since.
    failures: new workers that died since, at their first row."""

    answered: bool = False
    doubted: bool = False
    failures: int = 0


class Trust:
    """What is known of machines and workers. barred: the machines that get no more work."""

    def __init__(self) -> None:
        self._machines: dict[str, _Machine] = {}
        self._proven: set[str] = set()
        self.barred: set[str] = set()

    def is_proven(self, worker: str) -> bool:
        """Whether this worker has answered a row."""
        return worker in self._proven

    def doubts(self, machine: str) -> bool:
        """Whether a worker died on the machine, and nothing has been answered there since."""
        return self._of(machine).doubted

    @property
    def sound(self) -> set[str]:
        """The machines on which rows have been answered, less those that are barred."""
        return {name for name, machine in self._machines.items() if machine.answered} - self.barred

    def answered(self, worker: str, machine: str) -> None:
        self._proven.add(worker)
        self._machines[machine] = _Machine(answered=True)

    def died(self, worker: str, machine: str, trial: bool) -> None:
        """trial: the worker held a single row, to prove itself."""
        record = self._of(machine)
        record.doubted = True
        if trial and not self.is_proven(worker):
            record.failures += 1
            if record.failures >= TRIALS:
                self.barred.add(machine)

    def bar(self, machine: str) -> None:
        self.barred.add(machine)

    def forget(self, worker: str) -> None:
        self._proven.discard(worker)

    def _of(self, machine: str) -> _Machine:
        return self._machines.setdefault(machine, _Machine())
