"""No test asserts how fast something is; Hypothesis would, by default. What takes long runs on demand."""

from __future__ import annotations

import pytest
from hypothesis import settings

LONG = ("slow", "soak")

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What is marked as long is deselected, and counted as such, unless -m or a test's name asks for it."""
    named = any("::" in arg for arg in config.args)
    if config.getoption("-m") or named:
        return
    # Not by their keywords: the folder of the soak is one of them.
    long = [item for item in items if any(item.get_closest_marker(name) for name in LONG)]
    if long:
        items[:] = [item for item in items if item not in long]
        config.hook.pytest_deselected(items=long)
