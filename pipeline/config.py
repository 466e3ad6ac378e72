"""The job file: frozen, validated once, unknown keys refused by their path."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import datetime, time
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from pipeline.errors import ConfigError

Auto = Literal["auto"]
Endpoint = Literal["/v1/chat/completions", "/v1/completions", "/v1/embeddings"]
Changed = Literal["refuse", "keep", "redo"]
Count = Annotated[int, Field(ge=1)]


def _share_or_whole(gpus: float) -> float:
    if gpus > 1 and gpus % 1:
        raise ValueError("above 1 it must be a whole number of GPUs")
    return gpus


Column = Annotated[str, Field(min_length=1)]


def _once(keep: tuple[str, ...] | dict[str, str]) -> tuple[str, ...] | dict[str, str]:
    names = list(keep.values()) if isinstance(keep, dict) else list(keep)
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"{twice} is named twice")
    return keep


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class ModelConfig(_Section):
    """Where the GGUF is. `id` is the name that rows may use beside "local".

    cpu_repack: CPU slots use a copy as Q8_0, where llama.cpp's CPU kernels are slow for the file's types.
    chat_template: a file of Jinja, on any fsspec URL, to use instead of the GGUF's own template.
    """

    path: str = Field(min_length=1)
    sha256: str | None = Field(None, pattern=r"^[0-9a-fA-F]{64}$")
    id: str | None = None
    cpu_repack: bool = False
    chat_template: str | None = Field(None, min_length=1)


class InputConfig(_Section):
    """A Parquet, .jsonl or .csv file, a folder or a glob of them, on any fsspec URL.

    changed: what becomes of shards that changed or vanished since they were answered. New ones are taken on.
    skip: other outputs, one or a list; rows whose id has an answer there are skipped.
    """

    path: str = Field(min_length=1)
    changed: Changed = "refuse"
    skip: Annotated[str, Field(min_length=1)] | tuple[Annotated[str, Field(min_length=1)], ...] = ()

    @property
    def skipped(self) -> tuple[str, ...]:
        """The outputs of `skip`."""
        return (self.skip,) if isinstance(self.skip, str) else self.skip


class OutputConfig(_Section):
    """A folder on any fsspec URL.

    keep: input columns to carry along: a list, or a mapping to the names that they have in the output.
    parsed: whether answers are also a typed column, by the schema that all rows share; "auto" where they do.
    embedding: how vectors are stored; the smaller forms lose some of their numbers (`vector_forms.py`).
    """

    path: str = Field(min_length=1)
    keep: Annotated[tuple[Column, ...] | dict[Column, Column], AfterValidator(_once)] = ()
    parsed: bool | Auto = "auto"
    embedding: Literal["float32", "float16", "int8", "binary"] = "float32"

    @property
    def kept(self) -> dict[str, str]:
        """The name in the output of each column to carry along, by its name in the input."""
        return dict(self.keep) if isinstance(self.keep, dict) else {name: name for name in self.keep}


class RequestConfig(_Section):
    """How rows become requests: an endpoint for bare rows, defaults for every field, a template."""

    endpoint: Endpoint | None = None
    defaults: dict[str, Any] = {}
    template: dict[str, Any] | None = None
    truncate: bool = False


class EngineConfig(_Section):
    """The engine of each actor. "auto" fits the actor's CPU share or GPU.

    share_prefixes: what rows begin with alike is decoded once. reuse_answers: of equal rows with one possible
    answer, one is computed. skip_forced: what a constraint leaves no choice about is not sampled.
    """

    slots: Annotated[int, Field(ge=1, le=240)] | Auto = "auto"
    context: Annotated[int, Field(ge=16)] | Auto = "auto"
    batch: Annotated[int, Field(ge=32)] | Auto = "auto"
    ubatch: Annotated[int, Field(ge=32)] | Auto = "auto"
    threads: Count | Auto = "auto"
    gpu_layers: Annotated[int, Field(ge=-1)] | Auto = "auto"
    flash_attention: bool | Auto = "auto"
    kv_type: Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"] = "f16"
    reproducible: bool | Auto = "auto"
    share_prefixes: bool = True
    reuse_answers: bool = True
    skip_forced: bool = True


class ClusterConfig(_Section):
    """Actors and what each is pinned to; fractions of a GPU are allowed.

    patience: seconds without any place for a worker before the job ends.
    price_per_hour: what an hour of the cluster costs, in any currency, for forecasts.
    """

    actors: Count | Auto = "auto"
    cpus_per_actor: Annotated[float, Field(gt=0)] | Auto = "auto"
    gpus_per_actor: Annotated[float, Field(ge=0), AfterValidator(_share_or_whole)] | Auto = "auto"
    patience: Annotated[float, Field(gt=0)] = 1800.0
    price_per_hour: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None


class RetryConfig(_Section):
    """max_attempts: how often a row may be tried. row_deadline: seconds a row may take in the engine.

    max_failures: the job is given up when a larger share of its rows has failed; 1 never gives up.
    """

    max_attempts: Count = 3
    row_deadline: Annotated[float, Field(gt=0)] = 600.0
    max_failures: Annotated[float, Field(ge=0, le=1)] = 0.95


def _when(value: object) -> object:
    """YAML reads 22:30 as a number of base 60, and a full date with seconds as a date."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 24 * 60:
        return f"{value // 60:02}:{value % 60:02}"
    return value.isoformat(" ") if isinstance(value, datetime) else value


def _is_when(value: str) -> str:
    for read in (time.fromisoformat, datetime.fromisoformat):
        with suppress(ValueError):
            read(value)
            return value
    raise ValueError('expected a time such as "06:00", or a date and time such as "2026-12-24 06:00"')


class LimitsConfig(_Section):
    """When a run stops by itself, cleanly: the same command goes on with the rest.

    stop_at: a time of day, or a date and time; local time unless it names a zone. hours, tokens (prompt and
    completion), failures (rows that failed): of one run.
    """

    stop_at: Annotated[str, BeforeValidator(_when), AfterValidator(_is_when)] | None = None
    hours: Annotated[float, Field(gt=0)] | None = None
    tokens: Count | None = None
    failures: Count | None = None


class Replicas(_Section):
    """Replicas that come and go with the load. requests: under way at one replica, that Ray Serve aims at."""

    min: Count = 1
    max: Count
    requests: Annotated[float, Field(gt=0)] = 16.0

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min is {self.min}, but max is {self.max}")
        return self


class ServeConfig(_Section):
    """The HTTP service.

    queue: requests that may wait for a slot; beyond them, new ones are refused. grace: seconds that open
    requests have to end when the service is told to stop. ping: seconds of silence in a stream before a
    comment keeps it alive. megabytes: of a request's body, at most. origins: of web pages that may call.
    replicas: how many times the model is served, on a Ray cluster if more than once.
    """

    queue: Annotated[int, Field(ge=0)] = 256
    grace: Annotated[float, Field(ge=0)] = 30.0
    ping: Annotated[float, Field(gt=0)] = 10.0
    megabytes: Annotated[float, Field(gt=0)] = 32.0
    origins: tuple[str, ...] = ()
    replicas: Count | Replicas = 1

    @property
    def most_replicas(self) -> int:
        return self.replicas if isinstance(self.replicas, int) else self.replicas.max


class JobConfig(_Section):
    """One job, complete."""

    name: str = "nightherd"
    model: ModelConfig
    input: InputConfig
    output: OutputConfig
    request: RequestConfig = RequestConfig()
    engine: EngineConfig = EngineConfig()
    cluster: ClusterConfig = ClusterConfig()
    retry: RetryConfig = RetryConfig()
    limits: LimitsConfig = LimitsConfig()
    serve: ServeConfig = ServeConfig()


def load_job(path: Path | None, settings: Iterable[tuple[str, Any]] = ()) -> JobConfig:
    """The job of a YAML file, if any, with `settings` (dotted name, value) laid over it in order.

    Raises ConfigError, which names each wrong key by its path.
    """
    return make_job(
        _read_yaml(path) if path else {}, settings, f"job file {path}" if path else "command line"
    )


def make_job(tree: dict[str, Any], settings: Iterable[tuple[str, Any]], where: str) -> JobConfig:
    """The job of a tree of keys; `where` names its source in errors. As `load_job`."""
    for name, value in settings:
        _lay(tree, name, value)
    try:
        return JobConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(_explain(error, where)) from None


def parse_setting(text: str) -> tuple[str, Any]:
    """`KEY=VALUE` of the command line; the value is read as YAML ("16", "[a, b]", "true")."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ConfigError(f"--set {text!r}: expected KEY=VALUE, for example engine.slots=32")
    try:
        return name, yaml.safe_load(value)
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"--set {name}: the value {value!r} is not YAML: {error}") from None


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the job file {path} can't be read: {error}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"the job file {path} is not YAML: {error}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"the job file {path} must be a mapping of keys such as model, input, output")
    return tree


def _lay(tree: dict[str, Any], name: str, value: Any) -> None:
    *folders, leaf = name.split(".")
    for folder in folders:
        branch = tree.setdefault(folder, {})
        if not isinstance(branch, dict):
            raise ConfigError(f"{name}: {folder} is not a section of the job file")
        tree = branch
    tree[leaf] = value


def _explain(error: ValidationError, where: str) -> str:
    lines = [f"{where}: {_location(e['loc'])}: {_reason(e)}" for e in error.errors()]
    return "\n".join(dict.fromkeys(lines))


def _location(loc: tuple[int | str, ...]) -> str:
    sections: Mapping[str, Any] = JobConfig.model_fields
    # A union's branches ("int", "literal['auto']") follow the key: the path ends before them.
    depth = 2 if loc and loc[0] in sections and sections[str(loc[0])].annotation is not str else 1
    return ".".join(str(part) for part in loc[:depth])


def _reason(error: Any) -> str:
    if error["type"] == "extra_forbidden":
        return "unknown key"
    if error["type"] == "missing":
        return "required, but absent"
    return f"{error['msg'][0].lower()}{error['msg'][1:]} (got {error['input']!r})"
