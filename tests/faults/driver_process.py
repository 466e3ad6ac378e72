"""A driver of a job, as a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.faults.driver import Order
from tests.faults.machines import ROOT, parents, title_of


class DriverProcess:
    """It has been started; what it prints lies in `path`. Without an address it starts Ray itself."""

    def __init__(self, order: Order, address: str, folder: Path) -> None:
        self.order = order
        self.path = folder / f"driver-{order.run}.txt"
        file = folder / f"driver-{order.run}.json"
        order.write(file)
        ray = {"RAY_ADDRESS": address} if address else {}
        others = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        with self.path.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.driver", str(file)],
                cwd=ROOT,
                env={**others, **ray, **environment()},
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    @property
    def printed(self) -> str:
        return self.path.read_text(errors="replace")

    @property
    def tail(self) -> str:
        return self.printed[-2000:]

    def helpers(self, title: str) -> list[int]:
        """The processes that it has started, and those that they have, with a title that contains this."""
        of: dict[int, list[int]] = {}
        for pid, parent in parents():
            of.setdefault(parent, []).append(pid)
        found, waiting = [], [self.process.pid]
        while waiting:
            children = of.get(waiting.pop(), [])
            waiting += children
            found += [pid for pid in children if title in title_of(pid)]
        return found

    def wait(self, seconds: float) -> int:
        """Its exit status, negative for a signal. Raises TimeoutError, and kills it."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise TimeoutError(
                f"the driver did not end within {seconds:g} s:\n{self.printed[-1000:]}"
            ) from None

    def kill(self, number: int = signal.SIGKILL) -> None:
        self.process.send_signal(number)
        if number == signal.SIGKILL:
            self.process.wait()


def environment() -> Mapping[str, str]:
    return {"PYTHONPATH": str(ROOT), "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
