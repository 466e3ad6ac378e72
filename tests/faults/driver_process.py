"""A driver of a job, as a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.faults.driver import Order
from tests.faults.machines import ROOT


class DriverProcess:
    """It has been started; what it prints lies in `path`."""

    def __init__(self, order: Order, address: str, folder: Path) -> None:
        self.order = order
        self.path = folder / f"driver-{order.run}.txt"
        file = folder / f"driver-{order.run}.json"
        order.write(file)
        with self.path.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.driver", str(file)],
                cwd=ROOT,
                env={**os.environ, "RAY_ADDRESS": address, **environment()},
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
