"""What a JSON schema means as a type of Arrow, and its values as that type's. docs/parsed.md has the map.

What has no type of its own is JSON text: a string that holds the value as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import pyarrow as pa

from pipeline.constraint.subschemas import pointed_at

_DEEPEST = 24
_INTEGERS = range(-(2**63), 2**63)
_ENUM = pa.dictionary(pa.int32(), pa.string())


class UnfitError(ValueError):
    """A value that the type can't hold."""


@dataclass(frozen=True, slots=True)
class ArrowType:
    """read: makes of a JSON value what pyarrow takes for the type. Raises UnfitError.

    text: why the value is JSON text; None where it has a type of its own.
    """

    type: pa.DataType
    read: Callable[[Any], Any]
    text: str | None = None


def arrow_type(schema: Any) -> ArrowType:
    """The type of the values that a JSON schema describes. Every part of a value may be null."""
    return _Reader(schema).type_of(schema, "", ())


def one_of(texts: Iterable[str]) -> ArrowType:
    """The type of a choice among strings."""
    known = frozenset(texts)

    def read(value: Any) -> Any:
        if value not in known:
            raise UnfitError(f"{value!r} is none of the choices")
        return value

    return ArrowType(_ENUM, read)


@dataclass(frozen=True)
class _Reader:
    """root: the schema that references point into."""

    root: Any

    def type_of(self, schema: Any, path: str, seen: tuple[str, ...]) -> ArrowType:
        """path: of the schema, for reasons. seen: the references that led here."""
        if not isinstance(schema, dict) or not schema:
            return _json_text(f"{path or 'it'} says nothing of its values")
        if path.count(".") > _DEEPEST:
            return _json_text(f"{path} is nested more than {_DEEPEST} times")
        if "$ref" in schema:
            return self._referred(str(schema["$ref"]), path, seen)
        if "const" in schema or "enum" in schema:
            return _of_values(schema.get("enum", [schema.get("const")]), path)
        for key in ("anyOf", "oneOf", "allOf"):
            if key in schema:
                return self._combined(schema, key, path, seen)
        return self._typed(schema, path, seen)

    def _referred(self, reference: str, path: str, seen: tuple[str, ...]) -> ArrowType:
        if reference in seen:
            return _json_text(f"{path or 'it'} refers to itself")
        return self.type_of(pointed_at(self.root, reference), path, (*seen, reference))

    def _combined(self, schema: dict[str, Any], key: str, path: str, seen: tuple[str, ...]) -> ArrowType:
        """A null among the branches says nothing; others have to be of one type."""
        branches = [branch for branch in schema[key] if not _is_null(branch)]
        if key == "allOf" and len(branches) != 1:
            return _json_text(f"{path or 'it'} is an allOf of several schemas")
        values = [value for branch in branches for value in _listed(branch)]
        if branches and all(map(_listed, branches)):
            return _of_values(values, path)
        types = [self.type_of(branch, path, seen) for branch in branches]
        if not types:
            return _NULL
        if all(found.type == types[0].type and not found.text for found in types):
            return _first_that_fits(types)
        if {found.type for found in types} == {pa.int64(), pa.float64()}:
            return _NUMBER
        reasons = [found.text for found in types if found.text]
        return _json_text(reasons[0] if len(types) == 1 and reasons else f"{path or 'it'} has several types")

    def _typed(self, schema: dict[str, Any], path: str, seen: tuple[str, ...]) -> ArrowType:
        kinds = _kinds(schema)
        if kinds == {"integer", "number"}:
            return _NUMBER
        if len(kinds) > 1:
            return _json_text(f"{path or 'it'} has several types")
        kind = next(iter(kinds), "null")
        if kind == "object":
            return self._object(schema, path, seen)
        if kind == "array":
            return self._array(schema, path, seen)
        return _SCALARS.get(kind) or _json_text(f"{path or 'it'} has no type")

    def _object(self, schema: dict[str, Any], path: str, seen: tuple[str, ...]) -> ArrowType:
        properties, others = schema.get("properties") or {}, schema.get("additionalProperties")
        if schema.get("patternProperties"):
            return _json_text(f"{path or 'it'} has patternProperties")
        if not properties:
            if not isinstance(others, dict) or not others:
                return _json_text(f"{path or 'it'} names no properties")
            return _entries(self.type_of(others, f"{path}.*", seen))
        if len({name.casefold() for name in properties}) < len(properties) or "" in properties:
            return _json_text(f"{path or 'it'} has properties whose names most tools can't tell apart")
        return _struct({n: self.type_of(inner, f"{path}.{n}", seen) for n, inner in properties.items()})

    def _array(self, schema: dict[str, Any], path: str, seen: tuple[str, ...]) -> ArrowType:
        items, places = schema.get("items"), schema.get("prefixItems")
        if places and not all(place == places[0] and items in (None, False, place) for place in places):
            return _json_text(f"{path or 'it'} has items of several types")
        return _list(self.type_of(places[0] if places else items, f"{path}.items", seen))


def _kinds(schema: Mapping[str, Any]) -> set[str]:
    """The types that a schema names, or means by its keys; null aside."""
    named = schema.get("type")
    if named is None:
        keys = {"object": ("properties", "additionalProperties"), "array": ("items", "prefixItems")}
        named = [kind for kind, own in keys.items() if any(key in schema for key in own)] or ["any"]
    return {str(kind) for kind in (named if isinstance(named, list) else [named])} - {"null"}


def _is_null(schema: Any) -> bool:
    return isinstance(schema, dict) and (schema.get("type") == "null" or _listed(schema) == [None])


def _listed(schema: Any) -> list[Any]:
    """The values of an enum or a const; [] of any other schema."""
    if not isinstance(schema, dict):
        return []
    return list(schema.get("enum") or ([schema["const"]] if "const" in schema else []))


def _of_values(values: Sequence[Any], path: str) -> ArrowType:
    known = [value for value in values if value is not None]
    if not known:
        return _NULL
    kinds = {type(value) for value in known}
    if kinds == {str}:
        return one_of(known)
    if kinds == {bool}:
        return _SCALARS["boolean"]
    if kinds == {int}:
        return _SCALARS["integer"]
    if kinds <= {int, float}:
        return _NUMBER
    return _json_text(f"{path or 'it'} has values of several types")


def _struct(fields: Mapping[str, ArrowType]) -> ArrowType:
    def read(value: Any) -> Any:
        if not isinstance(value, dict):
            raise UnfitError(f"{type(value).__name__} is no object")
        return {name: _read(inner, value.get(name)) for name, inner in fields.items()}

    return ArrowType(pa.struct([(name, inner.type) for name, inner in fields.items()]), read)


def _list(items: ArrowType) -> ArrowType:
    def read(value: Any) -> Any:
        if not isinstance(value, list):
            raise UnfitError(f"{type(value).__name__} is no array")
        return [_read(items, item) for item in value]

    return ArrowType(pa.list_(items.type), read)


def _entries(values: ArrowType) -> ArrowType:
    """An object of any names: a list of its entries, since many tools read no maps."""

    def read(value: Any) -> Any:
        if not isinstance(value, dict):
            raise UnfitError(f"{type(value).__name__} is no object")
        return [{"key": name, "value": _read(values, inner)} for name, inner in value.items()]

    return ArrowType(pa.list_(pa.struct({"key": pa.string(), "value": values.type})), read)


def _read(found: ArrowType, value: Any) -> Any:
    return None if value is None else found.read(value)


def _first_that_fits(types: Sequence[ArrowType]) -> ArrowType:
    def read(value: Any) -> Any:
        for found in types:
            try:
                return found.read(value)
            except UnfitError as error:
                unfit = error
        raise unfit

    return types[0] if len(types) == 1 else ArrowType(types[0].type, read)


def _json_text(reason: str) -> ArrowType:
    def read(value: Any) -> Any:
        return json.dumps(value, ensure_ascii=False)

    return ArrowType(pa.string(), read, reason)


def _scalar(kind: pa.DataType, *types: type) -> ArrowType:
    def read(value: Any) -> Any:
        # In Python, true is an int.
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            raise UnfitError(f"{value!r} is no {kind}")
        return value

    return ArrowType(kind, read)


def _integer(value: Any) -> Any:
    """JSON Schema takes 3.0 for an integer, too."""
    whole = int(value) if isinstance(value, float) and value.is_integer() else value
    if not isinstance(whole, int) or isinstance(whole, bool) or whole not in _INTEGERS:
        raise UnfitError(f"{value!r} is no integer of 64 bits")
    return whole


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UnfitError(f"{value!r} is no number")
    try:
        number = float(value)
    except OverflowError:
        raise UnfitError(f"{value!r} is too large") from None
    if not isfinite(number):
        raise UnfitError(f"{value!r} is too large")
    return number


def _nothing(value: Any) -> Any:
    raise UnfitError(f"{value!r} is not null")


_NULL = ArrowType(pa.null(), _nothing)
_NUMBER = ArrowType(pa.float64(), _number)
_SCALARS = {
    "null": _NULL,
    "number": _NUMBER,
    "integer": ArrowType(pa.int64(), _integer),
    "boolean": _scalar(pa.bool_(), bool),
    "string": _scalar(pa.string(), str),
}
