"""Rows out of Arrow: every type becomes Python's values in one way, whatever is to be made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

import pyarrow as pa

from pipeline.errors import RowError
from pipeline.request.row_values import JsonText, Moment, number

Convert = Callable[[Any], Any]

_UNREADABLE = (ValueError, OverflowError, KeyError, pa.ArrowException)


def records(table: pa.Table, columns: Sequence[str]) -> list[dict[str, Any]]:
    """The rows as dicts of Python values; a value that can't be read (text not UTF-8 ...) is a RowError."""
    if not columns:
        return [{} for _ in range(table.num_rows)]
    values = [column_values(table.column(name), name) for name in columns]
    return [dict(zip(columns, row, strict=True)) for row in zip(*values, strict=True)]


def column_values(column: pa.ChunkedArray, name: str) -> list[Any]:
    """A column's values; one that can't be read is a RowError with the column's name.

    Extension types, at any depth, are what they are stored as; UUIDs are their text, JSON is JsonText.
    Decimals keep their digits, floats of 32 bits are no longer than they were written, times keep their
    nanoseconds. Structs and maps are dicts.
    """
    stored, convert = _stored(column.type), _converter(column.type)
    if stored != column.type:
        chunks = [pa.array(_Reinterpreted(chunk, stored)) for chunk in column.chunks]
        column = pa.chunked_array(chunks, type=stored)
    # Spark writes Python's dicts as maps. Asked for where there are none, dicts only take longer.
    maps = "strict" if "map<" in str(stored) else None
    try:
        values = column.to_pylist(maps_as_pydicts=maps)
        return list(map(convert, values)) if convert else list(values)
    except _UNREADABLE:  # one bad value spoils a column: find it
        return [_value(scalar, name, maps, convert) for scalar in column]


def _value(scalar: pa.Scalar, name: str, maps: str | None, convert: Convert | None) -> Any:
    try:
        value = scalar.as_py(maps_as_pydicts=maps)
        return convert(value) if convert else value
    except _UNREADABLE as error:
        return RowError("invalid_request", f"{name} can't be read: {error}", name)


class _Reinterpreted:
    """An array's memory, as an array of another type of the same layout."""

    def __init__(self, array: pa.Array, type_: pa.DataType) -> None:
        self._array, self._type = array, type_

    def __arrow_c_array__(self, requested_schema: object = None) -> tuple[object, object]:
        return self._type.__arrow_c_schema__(), self._array.__arrow_c_array__()[1]


def _stored(type_: pa.DataType) -> pa.DataType:
    """The type of the same layout that has no extension types, and integers for nanoseconds.

    Arrow gives Python's values of these only in part, and not alike on every machine: with pandas or without.
    """
    if isinstance(type_, pa.BaseExtensionType):
        return _stored(type_.storage_type)
    if _is_nanoseconds(type_):
        return pa.int64()
    if pa.types.is_dictionary(type_):
        return pa.dictionary(type_.index_type, _stored(type_.value_type), type_.ordered)
    if pa.types.is_struct(type_):
        return pa.struct([_stored_field(field) for field in type_])
    if pa.types.is_map(type_):
        key, item = _stored_field(type_.key_field), _stored_field(type_.item_field)
        return pa.map_(key, item, type_.keys_sorted)
    return _stored_list(type_)


def _stored_list(type_: pa.DataType) -> pa.DataType:
    if pa.types.is_fixed_size_list(type_):
        return pa.list_(_stored_field(type_.value_field), type_.list_size)
    for is_list, list_of in _LISTS:
        if is_list(type_):
            return list_of(_stored_field(type_.value_field))
    return type_


def _stored_field(field: pa.Field) -> pa.Field:
    return field.with_type(_stored(field.type))


_LISTS: tuple[tuple[Callable[[pa.DataType], bool], Callable[[pa.Field], pa.DataType]], ...] = (
    (pa.types.is_list, pa.list_),
    (pa.types.is_large_list, pa.large_list),
    (pa.types.is_list_view, pa.list_view),
    (pa.types.is_large_list_view, pa.large_list_view),
)


def _is_nanoseconds(type_: pa.DataType) -> bool:
    is_time = pa.types.is_timestamp(type_) or pa.types.is_time64(type_) or pa.types.is_duration(type_)
    return bool(is_time and type_.unit == "ns")


def _converter(type_: pa.DataType) -> Convert | None:
    """What is left to do with a value of `_stored(type_)`; None for nothing."""
    convert = _nested(type_) or _leaf(type_)
    return (lambda value: None if value is None else convert(value)) if convert else None


def _leaf(type_: pa.DataType) -> Convert | None:
    if isinstance(type_, pa.BaseExtensionType):
        return _EXTENSIONS.get(type_.extension_name) or _converter(type_.storage_type)
    if pa.types.is_decimal(type_):
        return number
    if pa.types.is_float32(type_) or pa.types.is_float16(type_):
        return lambda value: float(str(type_.to_pandas_dtype()(value)))
    if _is_nanoseconds(type_):
        return _nanoseconds(type_)
    return None


_EXTENSIONS: dict[str, Convert] = {
    "arrow.json": JsonText,
    "arrow.uuid": lambda value: str(UUID(bytes=value)),
    "arrow.bool8": bool,
}


def _nanoseconds(type_: pa.DataType) -> Convert:
    """A datetime, or for times of day and durations that have nanoseconds their text."""
    if pa.types.is_timestamp(type_):
        whole = pa.timestamp("us", type_.tz)
    else:
        whole = pa.time64("us") if pa.types.is_time64(type_) else pa.duration("us")

    def convert(value: int) -> Any:
        micros, nanos = divmod(value, 1000)
        found = pa.scalar(micros, whole).as_py()
        if not nanos:
            return found
        if pa.types.is_timestamp(type_):
            return Moment.of(found, nanos)
        text = str(found)
        return f"{text if '.' in text else f'{text}.000000'}{nanos:03}"

    return convert


def _nested(type_: pa.DataType) -> Convert | None:
    if pa.types.is_struct(type_):
        fields = {field.name: _converter(field.type) for field in type_}
        return _struct({name: convert for name, convert in fields.items() if convert})
    if pa.types.is_map(type_):
        return _map(_converter(type_.key_type), _converter(type_.item_type))
    if pa.types.is_dictionary(type_):
        return _converter(type_.value_type)
    is_list = pa.types.is_fixed_size_list(type_) or any(is_list(type_) for is_list, _ in _LISTS)
    item = _converter(type_.value_type) if is_list else None
    return (lambda values: [item(value) for value in values]) if item else None


def _struct(converters: dict[str, Convert]) -> Convert | None:
    if not converters:
        return None

    def convert(value: dict[str, Any]) -> dict[str, Any]:
        return value | {name: converter(value[name]) for name, converter in converters.items()}

    return convert


def _map(key: Convert | None, item: Convert | None) -> Convert | None:
    if not key and not item:
        return None

    def convert(value: dict[Any, Any]) -> dict[Any, Any]:
        return {key(k) if key else k: item(v) if item else v for k, v in value.items()}

    return convert
