from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.serve.live import Live, live, live_embeddings


@pytest.fixture(scope="module")
def chats() -> Iterator[Live]:
    with live() as made:
        yield made


@pytest.fixture(scope="module")
def vectors() -> Iterator[Live]:
    with live_embeddings() as made:
        yield made
