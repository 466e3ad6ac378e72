"""Values inside of tool calls, as models write them: JSON, Python, Gemma's own, or bare text."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

_BLANK = re.compile(r"\s*")
_GEMMA_QUOTE = '<|"|>'
_GEMMA_KEY = re.compile(r"\s*([^:{}\[\],]+?)\s*:")
_GEMMA_WORD = re.compile(r"[^\s,{}\[\]]+")
_LITERALS = {"true": True, "false": False, "null": None, "True": True, "False": False, "None": None}
MAX_DEPTH = 64


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON number")


# Models break lines inside strings.
_DECODER = json.JSONDecoder(strict=False, parse_constant=_refuse)


def json_at(text: str, at: int) -> tuple[Any, int] | None:
    """The object or list that begins at `at`, and its end; None where none does."""
    if not text.startswith(("{", "["), at):
        return None
    try:
        value: tuple[Any, int] = _DECODER.raw_decode(text, at)
    except (ValueError, RecursionError):
        return None
    return value


def arguments_text(value: Any) -> str | None:
    """The arguments of a call as the text of a JSON object; None where they are none.

    Some models write the arguments as a string of JSON, as OpenAI does.
    """
    if isinstance(value, str):
        inner = json_at(value, blank_end(value, 0))
        whole = inner is not None and not value[inner[1] :].strip()
        value = inner[0] if inner is not None and whole else None
    if not isinstance(value, dict):
        return None
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        return text if is_unicode(text) else json.dumps(value)
    except (ValueError, RecursionError):
        return None


def typed(text: str, schema: Any) -> Any:
    """The value of an argument that stands bare in a text, by the schema of its parameter.

    Without a schema, what is JSON is taken as such, and any other text as a string.
    """
    types = set(types_of(schema))
    if types == {"string"}:
        return text
    bare = text.strip()
    if bare in _LITERALS and ("string" not in types or bare in ("true", "false", "null")):
        return _LITERALS[bare]
    try:
        value = json.loads(bare, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return text
    return text if isinstance(value, str) and "string" in types else value


def types_of(schema: Any) -> Iterator[str]:
    """The JSON types that a schema allows, as far as it says so itself."""
    if not isinstance(schema, Mapping):
        return
    named = schema.get("type")
    yield from [named] if isinstance(named, str) else named if isinstance(named, list) else ()
    if named is None and isinstance(values := schema.get("enum"), list):
        yield from {"string" if isinstance(value, str) else "other" for value in values}
    for key in ("anyOf", "oneOf"):
        for inner in schema.get(key) or ():
            yield from types_of(inner)


def python_calls(text: str) -> list[tuple[str, dict[str, Any]]] | None:
    """`name(key=value, ...)`, several of them on lines of their own, with commas between, or in a list; None
    where the text is anything else."""
    try:
        lines = [line.value for line in ast.parse(text.strip()).body if isinstance(line, ast.Expr)]
        several = (ast.Tuple, ast.List)
        items = [item for line in lines for item in (line.elts if isinstance(line, several) else [line])]
        return [_python_call(item) for item in items] or None
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return None


def _python_call(node: ast.expr) -> tuple[str, dict[str, Any]]:
    if not isinstance(node, ast.Call) or node.args:
        raise ValueError("no call with named arguments")
    arguments = {}
    for keyword in node.keywords:
        if keyword.arg is None:
            raise ValueError("no name")
        arguments[keyword.arg] = _python_value(keyword.value)
    return ast.unparse(node.func), arguments


def _python_value(node: ast.expr) -> Any:
    """A literal of Python, in which JSON's true, false and null are known as well."""
    if isinstance(node, ast.Name) and node.id in _LITERALS:
        return _LITERALS[node.id]
    if isinstance(node, ast.List | ast.Tuple):
        return [_python_value(item) for item in node.elts]
    if isinstance(node, ast.Dict):
        if not all(isinstance(key, ast.Constant) for key in node.keys):
            raise ValueError("a key that is no constant")
        return {
            str(key.value): _python_value(value)
            for key, value in zip(node.keys, node.values, strict=True)
            if isinstance(key, ast.Constant)
        }
    value = ast.literal_eval(node)
    if not isinstance(value, str | int | float | bool | None):
        raise ValueError("no JSON value")
    return value


def gemma_at(text: str, at: int, depth: int = 0) -> tuple[Any, int] | None:
    """A value as Gemma 4 writes it (`{key:<|"|>text<|"|>,n:1}`) and its end; None where none begins."""
    if depth > MAX_DEPTH:
        return None
    at = blank_end(text, at)
    if text.startswith(_GEMMA_QUOTE, at):
        stop = text.find(_GEMMA_QUOTE, at + len(_GEMMA_QUOTE))
        return (text[at + len(_GEMMA_QUOTE) : stop], stop + len(_GEMMA_QUOTE)) if stop >= 0 else None
    if text.startswith("{", at):
        return _gemma_items(text, at + 1, "}", depth)
    if text.startswith("[", at):
        return _gemma_items(text, at + 1, "]", depth)
    word = re.compile(r"[^\s,{}\[\]]+").match(text, at)
    try:
        return (
            (_LITERALS[word[0]] if word[0] in _LITERALS else json.loads(word[0]), word.end())
            if word
            else None
        )
    except ValueError:
        return None


def _gemma_items(text: str, at: int, end: str, depth: int) -> tuple[Any, int] | None:
    keyed: dict[str, Any] = {}
    items: list[Any] = []
    while not text.startswith(end, at := blank_end(text, at)):
        key = _GEMMA_KEY.match(text, at) if end == "}" else None
        if end == "}" and key is None:
            return None
        value = gemma_at(text, key.end() if key else at, depth + 1)
        if value is None:
            return None
        if key:
            keyed[key[1].replace(_GEMMA_QUOTE, "")] = value[0]
        items.append(value[0])
        at = blank_end(text, value[1])
        if text.startswith(",", at):
            at += 1
        elif not text.startswith(end, at):
            return None
    return (keyed if end == "}" else items), at + 1


def blank_end(text: str, at: int) -> int:
    """Behind the blanks that begin at `at`."""
    match = _BLANK.match(text, at)
    assert match is not None, "it matches nothing, too"
    return match.end()


def is_unicode(text: str) -> bool:
    """JSON can spell half of a character, which no column of text can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
