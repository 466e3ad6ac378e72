"""Which page of a list a client asks for."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from fastapi import Request

from pipeline.errors import RowError
from pipeline.serve.batches.ids import is_id
from pipeline.serve.batches.pages import Order


@dataclass(frozen=True, slots=True)
class PageQuery:
    limit: int
    after: str | None
    order: Order


def page_query(
    request: Request, prefix: str, *, most: int, default: int, more: Collection[str] = ()
) -> PageQuery:
    """prefix: of the list's ids. most, default: for limit. more: other parameters that the list has.

    Raises RowError, with the parameter at fault."""
    query = request.query_params
    names = ("limit", "after", "order", *more)
    if unknown := next((name for name in query if name not in names), None):
        reason = f"{unknown[:60]} is not supported; supported: {', '.join(names)}"
        raise RowError("unsupported_parameter", reason, unknown)
    limit, after, order = query.get("limit", str(default)), query.get("after"), query.get("order", "desc")
    if not (limit.isascii() and limit.isdecimal() and 1 <= int(limit[:9]) <= most):
        raise RowError("invalid_request", f"limit must be a whole number from 1 to {most}", "limit")
    if after is not None and not is_id(prefix, after):
        raise RowError("invalid_request", f"after must be an id of this list, {prefix}...", "after")
    if order not in ("asc", "desc"):
        raise RowError("invalid_request", "order must be asc or desc", "order")
    return PageQuery(int(limit), after, "asc" if order == "asc" else "desc")
