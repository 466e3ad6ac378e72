"""One line of the doctor's table."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Level = Literal["ok", "warning", "problem"]


@dataclass(frozen=True, slots=True)
class Check:
    """What was found of one subject.

    level: "warning" for what makes a job slower, "problem" for what would end it.
    trouble: what is wrong, "" where nothing is.
    cure: the command or the setting that mends it, "" where there is none.
    facts: the same for programs, as JSON values.
    """

    subject: str
    found: str
    level: Level = "ok"
    trouble: str = ""
    cure: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Examination:
    """Everything that was found.

    machines: the checks of each machine, by its name.
    job: those of the job's input and output, which all machines share.
    """

    machines: dict[str, list[Check]]
    job: list[Check]

    @property
    def checks(self) -> list[Check]:
        return [check for checks in (*self.machines.values(), self.job) for check in checks]

    @property
    def sound(self) -> bool:
        """Whether a job can run; it may be slower than it need be."""
        return not any(check.level == "problem" for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        machines = {name: [check.to_dict() for check in checks] for name, checks in self.machines.items()}
        return {"sound": self.sound, "machines": machines, "job": [check.to_dict() for check in self.job]}
