"""Values of a row that keep what Python's own types would lose."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal


class WrittenNumber(float):
    """A number that prints as it was written, and calculates as a float: 19.90, or 1.2345678901234567890.

    digits: the number's text.
    """

    digits: str

    def __new__(cls, digits: str) -> WrittenNumber:
        number = super().__new__(cls, digits)
        number.digits = digits
        return number

    def __repr__(self) -> str:
        return self.digits

    __str__ = __repr__

    def __format__(self, form: str) -> str:
        return super().__format__(form) if form else self.digits

    def __reduce__(self) -> tuple[type[WrittenNumber], tuple[str]]:
        return WrittenNumber, (self.digits,)


class JsonText(str):
    """A text that its column's type calls JSON. A template sees the text, a request field its value."""


class Moment(datetime):
    """A time with nanoseconds, which Python's datetime lacks. nanosecond: 0 to 999, beside microsecond."""

    nanosecond = 0

    @classmethod
    def of(cls, value: datetime, nanosecond: int) -> Moment:
        place = value.timetuple()[:6]
        moment = cls(*place, value.microsecond, tzinfo=value.tzinfo, fold=value.fold)
        moment.nanosecond = nanosecond
        return moment

    def isoformat(self, sep: str = "T", timespec: str = "auto") -> str:
        if not self.nanosecond or timespec != "auto":
            return super().isoformat(sep, timespec)
        text = super().isoformat(sep, "microseconds")
        end = text.index(".") + len(".000000")
        return f"{text[:end]}{self.nanosecond:03}{text[end:]}"

    def __str__(self) -> str:
        return self.isoformat(" ")


def number(value: Decimal) -> int | WrittenNumber:
    """A decimal with the digits of its column's type: 5, 19.90."""
    text = format(value, "f")
    return WrittenNumber(text) if "." in text else int(text)
