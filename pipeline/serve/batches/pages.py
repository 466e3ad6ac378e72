"""Lists, a page at a time, as OpenAI's API has them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar

Order = Literal["asc", "desc"]
_READERS = 16


class Listed(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def body(self) -> dict[str, Any]: ...


Item = TypeVar("Item", bound=Listed)


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """more: whether others follow."""

    items: tuple[Item, ...]
    more: bool

    @property
    def body(self) -> dict[str, Any]:
        data = [item.body for item in self.items]
        first, last = (self.items[0].id, self.items[-1].id) if self.items else (None, None)
        ends = {"first_id": first, "last_id": last, "has_more": self.more}
        return {"object": "list", "data": data} | ends


def page_of(
    ids: Iterable[str],
    load: Callable[[str], Item | None],
    *,
    limit: int,
    after: str | None = None,
    order: Order = "desc",
) -> Page[Item]:
    """ids: of all there is; ids tell the order of creation. load: None for what isn't listed.
    after: the last id of the page before, which may be gone by now."""
    found: list[Item] = []
    left = [id for id in sorted(ids, reverse=order == "desc") if after is None or _follows(id, after, order)]
    # Storage may be slow to answer, but answers many at once.
    with ThreadPoolExecutor(_READERS) as threads:
        for start in range(0, len(left), _READERS):
            loaded = threads.map(load, left[start : start + _READERS])
            found += [item for item in loaded if item is not None]
            if len(found) > limit:
                break
    return Page(tuple(found[:limit]), len(found) > limit)


def _follows(id: str, after: str, order: Order) -> bool:
    return id > after if order == "asc" else id < after
