"""Faults are tried on a small cluster of real processes; what takes long runs only when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.case import Case
from tests.faults.machines import Machines

HERE = Path(__file__).parent
LONG = {
    "slow": "takes more than a few seconds; runs with -m slow",
    "soak": "many faults in one job, by a seed; runs with -m soak, --seed N for one of them",
}
NODES = 2
SEEDS = range(1, 25)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--seed", action="append", type=int, help="a soak's schedule of faults (may be repeated)"
    )


def pytest_configure(config: pytest.Config) -> None:
    for name, meaning in LONG.items():
        config.addinivalue_line("markers", f"{name}: {meaning}")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" in metafunc.fixturenames:
        metafunc.parametrize("seed", metafunc.config.getoption("--seed", default=None) or SEEDS)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What is marked as long is deselected, and counted as such, unless -m or a test's name asks for it."""
    named = any("::" in arg for arg in config.args)
    if config.getoption("-m") or named:
        return
    long = [item for item in items if HERE in item.path.parents and LONG.keys() & set(item.keywords)]
    if long:
        items[:] = [item for item in items if item not in long]
        config.hook.pytest_deselected(items=long)


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
