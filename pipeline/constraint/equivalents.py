"""What llguidance has no keyword for, said by keywords that it has: sets, kinds of names, Paths, Decimals."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import combinations, islice, permutations
from typing import Any

from pipeline.constraint.patterns import has_look_around, without_look_ahead
from pipeline.constraint.subschemas import pointed_at, subschemas
from pipeline.errors import RowError

Schema = dict[str, Any]

MAX_LISTS = 2000
"""Lists that a set may be written as; their compilation takes half a second."""
MAX_KEYS = 256
"""Sets of keys that a mapping may have."""
_ANNOTATIONS = frozenset("title description default examples deprecated type".split())
_BYTE = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_IPV4 = rf"{_BYTE}(?:\.{_BYTE}){{3}}"
# Formats that any string has, as far as its letters tell.
_ANY = frozenset("binary directory-path file-path password path".split())
_UUID = "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-%s[0-9a-fA-F]{3}-%s[0-9a-fA-F]{3}-[0-9a-fA-F]{12}$"
_PATTERNS = {
    **{f"uuid{n}": _UUID % (n, "[89abAB]") for n in (1, 3, 4, 5, 6, 7, 8)},
    "base64": "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$",
    "base64url": "^(?:[A-Za-z0-9_-]{4})*(?:[A-Za-z0-9_-]{2}==|[A-Za-z0-9_-]{3}=)?$",
    "ipv4interface": rf"^{_IPV4}(?:/(?:3[0-2]|[12]?\d))?$",
}
# The same for the names of properties, which llguidance knows by patterns only.
_NAMES = {
    "uuid": _UUID % ("[0-9a-fA-F]", "[0-9a-fA-F]"),
    "date": r"^\d{4}-(?:(?:0[13-9]|1[0-2])-(?:0[1-9]|[12]\d|30)|(?:0[13578]|1[02])-31"
    r"|02-(?:0[1-9]|1\d|2[0-8]))$",
    "ipv4": rf"^{_IPV4}$",
}


def use_equivalents(schema: Schema, param: str) -> None:
    """Changes a schema to one of the same answers, or of fewer: what has an equivalent is replaced by it.

    param: the schema's path in the request.
    Raises RowError (unsupported_parameter), which names the path of a set or of names that have none.
    """
    # Inner schemas first: outer ones may come to hold several copies of them.
    for path, inner in reversed(list(subschemas(param, schema))):
        _replace_format(inner)
        _replace_pattern(inner)
        _replace_set(inner, path, schema)
        _replace_names(inner, path, schema)


def _replace_format(schema: Schema) -> None:
    form = schema.get("format")
    if form in _ANY:
        del schema["format"]
    elif form == "ipvanyaddress":
        del schema["format"]
        _also(schema, [{"anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]}])
    elif isinstance(form, str) and form in _PATTERNS:
        del schema["format"]
        _also(schema, [{"pattern": _PATTERNS[form]}])


def _replace_pattern(schema: Schema) -> None:
    pattern = schema.get("pattern")
    if isinstance(pattern, str) and has_look_around(pattern) and (parts := without_look_ahead(pattern)):
        del schema["pattern"]
        _also(schema, [{"pattern": part} for part in parts])


def _also(schema: Schema, others: list[Schema]) -> None:
    schema["allOf"] = [*schema.get("allOf", []), *others]


def _replace_set(schema: Schema, path: str, root: Schema) -> None:
    """A list whose items all differ is one of a few lists, where an item is one of a few values."""
    unique = schema.pop("uniqueItems", None)
    most = schema.get("maxItems")
    if unique is not True or (isinstance(most, int) and most <= 1):
        return
    if schema.get("type") != "array" or "prefixItems" in schema:
        raise _refused(path, "uniqueItems", "the items must be one of a few values")
    values = _values(schema.get("items"), root)
    if values is None:
        raise _refused(
            path,
            "uniqueItems",
            "is served where items is an enum or otherwise one of a few values; leave it out (in pydantic: "
            "list instead of set) and remove doubles afterwards",
        )
    lists = _lists(values, int(schema.get("minItems", 0)), len(values) if most is None else int(most))
    if lists is None:
        reason = f"of {len(values)} values makes more than {MAX_LISTS} lists: maxItems makes it fewer"
        raise _refused(path, "uniqueItems", reason)
    for key in ("items", "minItems", "maxItems"):
        schema.pop(key, None)
    schema["enum"] = lists


def _lists(values: Sequence[Any], least: int, most: int) -> list[list[Any]] | None:
    """All lists of different values; in the values' own order only, where that makes too many."""
    for arrange in (permutations, combinations):
        sizes = range(least, min(most, len(values)) + 1)
        found = list(islice((list(some) for n in sizes for some in arrange(values, n)), MAX_LISTS + 1))
        if len(found) <= MAX_LISTS:
            return found
    return None


def _values(schema: Any, root: Schema) -> list[Any] | None:
    """All values of a schema, where it says them one by one."""
    schema = _resolved(schema, root)
    if not isinstance(schema, dict):
        return None
    said = schema.keys() - _ANNOTATIONS
    if said == {"enum"} and isinstance(schema["enum"], list):
        return _different(schema["enum"])
    if said == {"const"} or said == {"const", "enum"}:
        return [schema["const"]]
    if said == {"anyOf"} and isinstance(schema["anyOf"], list):
        parts = [_values(part, root) for part in schema["anyOf"]]
        return None if None in parts else _different([v for part in parts if part for v in part])
    if said == {"minimum", "maximum"} and schema.get("type") == "integer":
        numbers = range(int(schema["minimum"]), int(schema["maximum"]) + 1)
        return list(numbers) if len(numbers) <= MAX_KEYS else None
    simple: dict[Any, list[Any]] = {"boolean": [True, False], "null": [None]}
    return None if said else simple.get(str(schema.get("type")))


def _different(values: list[Any]) -> list[Any]:
    """Each value once. In JSON 1 and 1.0 are equal, and true is neither."""
    return list({json.dumps(_as_integer(value), sort_keys=True): value for value in values}.values())


def _as_integer(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _replace_names(schema: Schema, path: str, root: Schema) -> None:
    """A mapping whose names are of a kind has properties of these names only."""
    if "propertyNames" not in schema:
        return
    names = _resolved(schema.pop("propertyNames"), root)
    value = schema.get("additionalProperties", True)
    if names is True or (isinstance(names, dict) and names.keys() <= _ANNOTATIONS and _may_be_text(names)):
        return
    values = [] if names is False else _values(names, root)
    if values is None:
        _name_by_pattern(schema, _name_pattern(names), path, value)
        return
    texts = [value for value in values if isinstance(value, str)]
    if values and not texts:
        raise _refused(path, "propertyNames", "names are strings, and none of these values is one")
    _name_all(schema, texts, path)


def _may_be_text(names: Schema) -> bool:
    kinds = names.get("type", "string")
    return "string" in (kinds if isinstance(kinds, list) else [kinds])


def _name_all(schema: Schema, names: list[str], path: str) -> None:
    if "patternProperties" in schema:
        raise _refused(path, "propertyNames", "can't be combined with patternProperties")
    value, own = schema.get("additionalProperties", True), schema.get("properties", {})
    known = {name: own.get(name, value) for name in (*own, *names) if name in names}
    schema["properties"] = {name: inner for name, inner in known.items() if inner is not False}
    schema["additionalProperties"] = False
    _count_names(schema, path)


def _count_names(schema: Schema, path: str) -> None:
    """llguidance counts properties only where all of them are required: one schema for each set of names."""
    names = list(schema["properties"])
    least, most = int(schema.pop("minProperties", 0)), int(schema.pop("maxProperties", len(names)))
    needed = set(schema.get("required", []))
    if least <= len(needed) and most >= len(names):
        return
    if least == 1 and most >= len(names):
        choices = [(names[i:], [name]) for i, name in enumerate(names)]
    else:
        sizes = range(least, min(most, len(names)) + 1)
        sets = (list(some) for n in sizes for some in combinations(names, n) if needed <= set(some))
        choices = [(some, some) for some in islice(sets, MAX_KEYS + 1)]
    if len(choices) > MAX_KEYS or not choices:
        keyword = "minProperties" if least else "maxProperties"
        raise _refused(path, keyword, f"with {len(names)} names makes {len(choices) or 'no'} sets of them")
    every = schema.pop("properties")
    schema.pop("required", None)
    schema.pop("additionalProperties")
    _also(schema, [{"anyOf": [_exactly({n: every[n] for n in some}, must) for some, must in choices]}])


def _exactly(properties: Schema, required: list[str]) -> Schema:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _name_pattern(names: Any) -> str | None:
    """The pattern of a name; None where it isn't a matter of one pattern."""
    said = names.keys() - _ANNOTATIONS if isinstance(names, dict) else set()
    if not said or not _may_be_text(names):
        return None
    if said <= {"minLength", "maxLength"}:
        return rf"^[\s\S]{{{names.get('minLength', 0)},{names.get('maxLength', '')}}}$"
    if said == {"allOf"} and len(names["allOf"]) == 1:
        return _name_pattern(names["allOf"][0])
    if said == {"pattern"} and not has_look_around(str(names["pattern"])):
        return str(names["pattern"])
    return _NAMES.get(str(names["format"])) if said == {"format"} else None


def _name_by_pattern(schema: Schema, pattern: str | None, path: str, value: Any) -> None:
    if pattern is None:
        reason = "is served where it is an enum, a pattern, lengths, or a format among " + ", ".join(_NAMES)
        raise _refused(path, "propertyNames", reason)
    if schema.get("patternProperties") or (schema.get("properties") and value is not False):
        raise _refused(path, "propertyNames", "can't be combined with other properties")
    if value is False:
        own = schema.get("properties", {})
        schema["properties"] = {name: inner for name, inner in own.items() if re.search(pattern, name)}
        return
    schema["patternProperties"] = {pattern: value}
    schema["additionalProperties"] = False


def _resolved(schema: Any, root: Schema) -> Any:
    for _ in range(16):
        if not isinstance(schema, dict) or "$ref" not in schema or schema.keys() - _ANNOTATIONS != {"$ref"}:
            return schema
        schema = pointed_at(root, str(schema["$ref"]))
    return None


def _refused(path: str, keyword: str, reason: str) -> RowError:
    return RowError("unsupported_parameter", f"{path}.{keyword}: {reason}", f"{path}.{keyword}")
