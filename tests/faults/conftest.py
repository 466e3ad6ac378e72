"""Faults are tried on a small cluster of real processes; what takes long runs only when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.case import Case
from tests.faults.machines import Machines

NODES = 2
SEEDS = range(1, 25)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--seed", action="append", type=int, help="a soak's schedule of faults (may be repeated)"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" in metafunc.fixturenames:
        metafunc.parametrize("seed", metafunc.config.getoption("--seed", default=None) or SEEDS)


@pytest.fixture(scope="package")
def machines() -> Iterator[Machines]:
    machines = Machines((1,) * NODES)
    yield machines
    machines.close()


@pytest.fixture
def case(tmp_path: Path, machines: Machines) -> Iterator[Case]:
    case = Case(tmp_path, machines.address)
    yield case
    case.close()
    machines.restore(NODES)
