"""Rows become requests: batch lines, bare requests, and templates over any columns."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from pipeline.config import Endpoint, RequestConfig
from pipeline.errors import ConfigError, InputError, RowError
from pipeline.request.arrow_values import records
from pipeline.request.defaults import with_defaults
from pipeline.request.dry_run import dry_run
from pipeline.request.json_values import read_json, short
from pipeline.request.names import row_name
from pipeline.request.schema import (
    CONTENT,
    KNOWN_FIELDS,
    REQUESTS,
    Request,
    fields_of,
    parse_request,
)
from pipeline.request.template import RowTemplate
from pipeline.request.texts import said_by
from pipeline.request.unserved import WITHOUT_MEANING

LINES = ("line",)
"""The columns of a shard of JSON lines: each row is one JSON object."""

_NAMES = ("custom_id", "id")
_BATCH = ("method", "url", "body")
# In a Parquet column, these may be a string of JSON.
_STRUCTURED = (
    "messages",
    "logit_bias",
    "response_format",
    "tools",
    "guided_choice",
    "dry_sequence_breakers",
    "chat_template_kwargs",
)

_PARAMS = (
    "params holds the request, as Instructor and Anthropic's Message Batches write it, but a line must be "
    'as OpenAI\'s Batch API has it: {"custom_id": ..., "method": "POST", "url": "/v1/chat/completions", '
    '"body": {...}}: rename params to body, and add the url where it is missing'
)

__all__ = ["LINES", "Record", "Row", "RowReader", "records"]

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Row:
    """A row's name, and its request or what is wrong with it.

    is_named: whether the name is its own, rather than that of its place.
    """

    custom_id: str
    request: Request | RowError
    is_named: bool = False


class RowReader:
    """Turns the records of one shard into requests; its columns decide how."""

    def __init__(
        self,
        config: RequestConfig,
        columns: Sequence[str],
        shard: str,
        partition: Collection[str] = (),
        *,
        texts: bool = False,
    ) -> None:
        """partition: columns that the names of the shard's folders give, for templates alone.
        texts: whether all that the shard has are texts, as in CSV.

        Raises InputError where no column makes a request, ConfigError where config.defaults or
        config.template can't make one."""
        self._config = config
        self._shard = shard
        self._texts = texts
        self._template = RowTemplate(config.template) if config.template is not None else None
        self._endpoint = _template_endpoint(config) if self._template else config.endpoint
        self._check_config()
        self._is_lines = tuple(columns) == LINES and not (
            self._template and LINES[0] in self._template.columns
        )
        self._is_batch = not self._template and self._looks_like_batch(columns)
        if not self._is_lines:
            self._check_columns([*columns, *partition] if self._template else columns)
        self._of_folders = [n for n in partition if self._template and self._template.uses(n)]
        self.columns: tuple[str, ...] = (*filter(self._needs, columns), *self._of_folders)
        """The columns that `read` looks at."""

    def read(self, record: Record, number: int, duplicate: bool = False) -> Row:
        """The row's request, or the RowError that it is answered with; nothing in a row raises.

        number: the row's number in the shard. duplicate: an earlier row has the same custom_id.
        """
        name, own = f"{self._shard}:{number}", None
        try:
            folders = {column: record[column] for column in self._of_folders}
            record = self._open({column: record[column] for column in record if column not in folders})
            own = _own_name(record)
            name = own or name
            if duplicate:
                reason = f"custom_id {short(name)} is used more than once in this shard"
                raise RowError("invalid_request", reason, "custom_id")
            request = self._request({**folders, **record} if folders else record)
            return Row(name, request, own is not None)
        except RowError as error:
            return Row(name, error, own is not None)

    def _open(self, record: Record) -> Record:
        for name, value in record.items():
            # A template may have no use for it, and any data may be called id.
            if isinstance(value, RowError) and (name == "custom_id" or not (self._template or name == "id")):
                raise value
        if not self._is_lines:
            return record
        line = record[LINES[0]]
        line = read_json(line, None, as_written=True) if isinstance(line, str | bytes) else line
        if not isinstance(line, dict):
            raise RowError("invalid_request", f"the line must be a JSON object, not {short(line)}")
        return line

    def _request(self, record: Record) -> Request:
        if self._template and self._endpoint:
            return self._parse(self._endpoint, _structured(self._template.render(record)))
        if self._texts:
            record = said_by(record)
        if self._is_batch or (self._is_lines and self._looks_like_batch(record)):
            return self._batch(record)
        return self._bare(record)

    def _batch(self, record: Record) -> Request:
        method = record.get("method")
        if method is not None and str(method).upper() != "POST":
            raise RowError("invalid_request", f"method must be POST, not {short(method)}", "method")
        body = record.get("body")
        if isinstance(body, str | bytes):
            body = read_json(body, "body")
        if not isinstance(body, dict):
            raise RowError("invalid_request", f"body must be a JSON object, not {short(body)}", "body")
        url = record.get("url")
        endpoint = (self._config.endpoint or _asked(body)) if url is None else endpoint_of(url)
        if endpoint is None:
            reason = f"url must be one of {', '.join(REQUESTS)}, not {short(url)}"
            raise RowError("invalid_request", reason, "url")
        return self._parse(endpoint, body)

    def _bare(self, record: Record) -> Request:
        if "params" in record and not set(CONTENT.values()) & record.keys():
            raise RowError("invalid_request", _PARAMS, "params")
        asked: list[Endpoint] = [e for e, column in CONTENT.items() if record.get(column) is not None]
        if not self._endpoint and len(asked) != 1:
            found = " and ".join(CONTENT[endpoint] for endpoint in asked) or "none"
            reason = f"a row needs one of messages, prompt and input, but has {found}"
            raise RowError("invalid_request", reason + (_choice_of(asked) if asked else ""))
        endpoint = self._endpoint or asked[0]
        unasked = set(CONTENT.values()) - {CONTENT[endpoint]}
        body = {name: value for name, value in record.items() if name in KNOWN_FIELDS - unasked}
        return self._parse(endpoint, _structured(body))

    def _parse(self, endpoint: Endpoint, body: Record) -> Request:
        return parse_request(endpoint, with_defaults(self._config.defaults, endpoint, body))

    def _check_config(self) -> None:
        """A dry run of the parts of the job file that are the same for every row."""
        for section, fields in self._constants().items():
            endpoints: list[Endpoint] = [self._endpoint] if self._endpoint else list(REQUESTS)
            served = frozenset[str]().union(*map(fields_of, endpoints))
            for name in fields:
                if name not in served | WITHOUT_MEANING.keys():
                    raise ConfigError(
                        f"{section}.{name}: unsupported; supported: {', '.join(sorted(served))}"
                    )
            for endpoint in endpoints:
                dry_run(section, endpoint, {n: v for n, v in fields.items() if n in fields_of(endpoint)})

    def _constants(self) -> dict[str, Record]:
        """What the job file says by itself. A template's other fields stand in as null."""
        sections: dict[str, Record] = {"request.defaults": self._config.defaults}
        if self._template and self._config.template:
            known = self._template.constants
            sections["request.template"] = {name: known.get(name) for name in self._config.template}
        return sections

    def _check_columns(self, columns: Sequence[str]) -> None:
        if self._template:
            self._template.require(columns)
            return
        asked = [CONTENT[self._endpoint]] if self._endpoint else list(CONTENT.values())
        if not self._is_batch and not set(asked) & set(columns):
            if "params" in columns:
                raise InputError(f"{self._shard}: {_PARAMS}")
            raise InputError(
                f"{self._shard}: its columns ({', '.join(columns) or 'none'}) make no request; needed: "
                f"{' or '.join(asked)}; or body and url, as in a batch line; or request.template"
            )

    def _looks_like_batch(self, columns: Sequence[str] | Record) -> bool:
        """Pages of the web have url and body, too: beside a prompt, only method makes them a batch line."""
        if "method" not in columns and any(content in columns for content in CONTENT.values()):
            return False
        if "body" not in columns:
            return False
        # Mistral's lines have no url.
        is_body = isinstance(columns, Mapping) and isinstance(columns["body"], dict)
        return "url" in columns or self._config.endpoint is not None or is_body

    def _needs(self, column: str) -> bool:
        if self._is_lines or column in _NAMES:
            return True
        if self._template:
            return self._template.uses(column)
        return column in (_BATCH if self._is_batch else KNOWN_FIELDS)


def _choice_of(asked: Sequence[Endpoint]) -> str:
    choices = " or ".join(f"{endpoint} (for {CONTENT[endpoint]})" for endpoint in asked)
    return f"; request.endpoint in the job file says which is meant: {choices}"


def _template_endpoint(config: RequestConfig) -> Endpoint:
    asked: list[Endpoint] = [e for e, field in CONTENT.items() if field in (config.template or {})]
    if config.endpoint:
        return config.endpoint
    if len(asked) != 1:
        raise ConfigError("request.template: needs one of messages, prompt and input, or request.endpoint")
    return asked[0]


def _own_name(record: Record) -> str | None:
    for column in _NAMES:
        try:
            name = row_name(record.get(column), column)
        except RowError:
            if column == "custom_id":
                raise
            continue
        if name is not None:
            return name
    return None


def endpoint_of(url: Any) -> Endpoint | None:
    """The endpoint that a URL means; None for another's.

    Providers put it below paths of their own: /openai/v1/chat/completions, or
    /openai/deployments/NAME/chat/completions?api-version=...
    """
    try:
        path = urlsplit(url).path.lower() if isinstance(url, str) else ""
    except ValueError:
        return None
    # Chats before completions: one ends as the other.
    ends = {endpoint.removeprefix("/v1"): endpoint for endpoint in REQUESTS}
    return next((ends[end] for end in ends if f"/{path.strip('/')}".endswith(end)), None)


def _asked(body: Record) -> Endpoint | None:
    """The endpoint that a body without a url can only mean."""
    asked: list[Endpoint] = [e for e, field in CONTENT.items() if body.get(field) is not None]
    return asked[0] if len(asked) == 1 else None


def _structured(body: Record) -> dict[str, Any]:
    return {name: read_json(value, name) if _is_json(name, value) else value for name, value in body.items()}


def _is_json(name: str, value: Any) -> bool:
    if not isinstance(value, str | bytes):
        return False
    # "auto" is a string by itself, and no JSON.
    is_object = value[:1] in ("{", b"{")
    return name in _STRUCTURED or (name == "tool_choice" and is_object)
