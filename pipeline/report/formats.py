"""Values as the pages of a report write them."""

from __future__ import annotations

from datetime import datetime


def cut(value: object, most: int) -> str:
    """A value as a text of at most so many characters."""
    text = f"({len(value):,} bytes)" if isinstance(value, bytes) else str(value).strip()
    return text if len(text) <= most else f"{text[:most].rstrip()} … ({len(text):,} characters)"


def number(value: float) -> str:
    """ "1,234", "12.3", "0.0123"."""
    if abs(value) >= 100 or float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:.3g}"


def moment(seconds: float) -> str:
    """ "2026-11-25 02:10 CET", local time."""
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M %Z")
