"""No test asserts how fast something is; Hypothesis would, by default. What takes long runs on demand."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

LONG = ("slow", "soak")
HERE = Path(__file__).parent
# Tests of whole machines, or of a model on all cores: never two of them at once.
WHOLE_MACHINE = {"doctor", "engine", "faults", "job", "model", "native", "plan", "soak"}
WHOLE_MACHINE |= {"cluster", "test_label_oracle", "test_real_requests", "test_notebooks"}

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What is marked as long is deselected, and counted as such, unless -m or a test's name asks for it."""
    for item in items:
        place = item.path.relative_to(HERE)
        whole = {*place.parts, place.stem} & WHOLE_MACHINE
        item.add_marker(pytest.mark.xdist_group("machine" if whole else str(place)))
    named = any("::" in arg for arg in config.args)
    if config.getoption("-m") or named:
        return
    # Not by their keywords: the folder of the soak is one of them.
    long = [item for item in items if any(item.get_closest_marker(name) for name in LONG)]
    if long:
        items[:] = [item for item in items if item not in long]
        config.hook.pytest_deselected(items=long)
