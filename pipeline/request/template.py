"""The job file's request.template: how any columns become a request's fields."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from jinja2 import StrictUndefined, TemplateError, UndefinedError, meta, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pipeline.errors import ConfigError, InputError, RowError
from pipeline.request.json_values import as_written, json_text

ROW = "row"
"""In a template, the whole row: `{{ row["a name with blanks"] }}`."""

_TEXTS = ("content", "prompt", "input", "text")
_WHOLE = re.compile(r"\{\{\s*([A-Za-z_]\w*)\s*\}\}")
_JINJA = re.compile(r"\{[{%#]")


class _Unreadable(StrictUndefined):
    """A value that can't be read: no matter, unless the template uses it."""

    __repr__ = __str__ = StrictUndefined._fail_with_undefined_error


class _Environment(ImmutableSandboxedEnvironment):
    """In `order.items`, a struct's own field goes before what Python's dicts offer."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, dict) and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)


_ENVIRONMENT = _Environment(
    undefined=StrictUndefined,
    keep_trailing_newline=True,
    autoescape=False,
    finalize=lambda value: "" if value is None else value,
)
# Jinja's own filter sorts keys, and escapes for HTML.
_ENVIRONMENT.filters["tojson"] = json_text
_BARE = _Environment()
# Tells which names a template uses, `range` and the like among them: a column may be called so.
_BARE.globals.clear()

Leaf = Callable[[Mapping[str, Any]], Any]


class RowTemplate:
    """A tree of values whose strings are Jinja over the row's columns.

    A null column, or field of a struct, renders as "". A string that is nothing but "{{ column }}" gives the
    column's value with its type, or nothing for a null; as a text (content, prompt, input) a number becomes
    its digits.
    """

    def __init__(self, tree: Mapping[str, Any]) -> None:
        """Raises ConfigError that names the string that isn't Jinja by its path."""
        self.columns: set[str] = set()
        self.named: set[str] = set()
        """Columns that are used as `row["column"]`: they may be absent."""
        self._leaves = {key: self._compile(value, f"request.template.{key}") for key, value in tree.items()}
        self.constants = {key: value for key, value in tree.items() if not _has_jinja(value)}

    def require(self, columns: Collection[str]) -> None:
        """Raises InputError where the template uses a column that isn't among `columns`."""
        if missing := sorted(self.columns - set(columns) - {ROW, *_ENVIRONMENT.globals}):
            names = ", ".join(missing)
            raise InputError(
                f"request.template uses {names}, but the input's columns are {', '.join(columns)}"
            )

    def render(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """The request body of a row. Raises RowError where Jinja fails on it."""
        values = {name: _value(value, name) for name, value in record.items() if self.uses(name)}
        scope = {ROW: values, **values}
        return {key: leaf(scope) for key, leaf in self._leaves.items()}

    def uses(self, column: str) -> bool:
        """Whether the template may look at the column."""
        return column in self.columns or column in self.named or ROW in self.columns

    def _compile(self, value: Any, path: str) -> Leaf:
        if isinstance(value, dict):
            return _mapping({k: self._compile(v, f"{path}.{k}") for k, v in value.items()})
        if isinstance(value, list):
            return _list([self._compile(v, f"{path}[{i}]") for i, v in enumerate(value)])
        if not isinstance(value, str) or not _JINJA.search(value):
            return lambda scope: value
        columns, named = _columns(value, path)
        self.columns |= columns
        self.named |= named
        if whole := _WHOLE.fullmatch(value):
            return _column(whole[1], path)
        return _text(value, path)


def _value(value: Any, name: str) -> Any:
    try:
        if isinstance(value, RowError):
            raise value
        return as_written(value, name)
    except RowError as error:
        return _Unreadable(error.message)


def _usable(value: Any) -> Any:
    if isinstance(value, _Unreadable):
        str(value)  # raises UndefinedError
    return value


def _mapping(leaves: dict[str, Leaf]) -> Leaf:
    return lambda scope: {key: leaf(scope) for key, leaf in leaves.items()}


def _list(leaves: list[Leaf]) -> Leaf:
    return lambda scope: [leaf(scope) for leaf in leaves]


def _column(name: str, path: str) -> Leaf:
    is_text = path.rpartition(".")[2].partition("[")[0] in _TEXTS

    def leaf(scope: Mapping[str, Any]) -> Any:
        if name not in scope:
            raise RowError("invalid_request", f"{path}: the row has no {name}")
        value = scope[name]
        try:
            return str(value) if is_text and not isinstance(value, list | None) else _usable(value)
        except UndefinedError as error:
            raise RowError("invalid_request", f"{path}: {error}", name) from None

    return leaf


def _text(source: str, path: str) -> Leaf:
    template = _ENVIRONMENT.from_string(source)

    def leaf(scope: Mapping[str, Any]) -> Any:
        try:
            return template.render({name: "" if value is None else value for name, value in scope.items()})
        except Exception as error:  # Jinja lets through whatever an expression raises
            raise RowError("invalid_request", f"{path}: {type(error).__name__}: {error}") from None

    return leaf


def _columns(source: str, path: str) -> tuple[set[str], set[str]]:
    """The columns that a template names, and those that it takes from `row` by their names."""
    try:
        _ENVIRONMENT.from_string(source)
        tree = _BARE.parse(source)
    except TemplateError as error:
        raise ConfigError(f"{path}: not a Jinja template: {error}") from None
    columns, named = meta.find_undeclared_variables(tree), set(_named(tree))
    uses = sum(name.name == ROW for name in tree.find_all(nodes.Name))
    if ROW in columns and uses == sum(1 for _ in _named(tree)):
        return columns - {ROW}, named
    return columns, set()


def _named(tree: nodes.Template) -> Iterator[str]:
    for node in tree.find_all(nodes.Getitem):
        is_of_row = isinstance(node.node, nodes.Name) and node.node.name == ROW
        if is_of_row and isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str):
            yield node.arg.value


def _has_jinja(value: Any) -> bool:
    if isinstance(value, dict | list):
        return any(map(_has_jinja, value.values() if isinstance(value, dict) else value))
    return isinstance(value, str) and bool(_JINJA.search(value))
