"""What a job's results depend on: two jobs of one fingerprint may share one output."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pipeline.config import EngineConfig, JobConfig, OutputConfig
from pipeline.input.shards import ShardPlan
from pipeline.model.model_template import read_chat_template

_RESULT_SETTINGS = ("reproducible", "context", "kv_type", "flash_attention")
_REPRODUCIBLE_SETTINGS = ("batch", "ubatch")


@dataclass(frozen=True)
class Fingerprint:
    """record: JSON values only; where the input and the model lie is not part of it."""

    record: Mapping[str, Any]

    @classmethod
    def of(
        cls, config: JobConfig, model_sha256: str, plans: Iterable[ShardPlan], parsed: str | None = None
    ) -> Fingerprint:
        """The fingerprint of a job over the planned shards with the model of that hash.

        parsed: what the column `parsed` is made by, where there is one.
        Raises ModelError where the job's chat template can't be read.
        """
        shards = {p.shard.name: {"rows": p.rows, "size": p.shard.size, "digest": p.digest} for p in plans}
        return cls(
            {
                "model": {
                    "sha256": model_sha256,
                    "id": config.model.id,
                    "cpu_repack": config.model.cpu_repack,
                    "chat_template": _digest(read_chat_template(config.model)),
                },
                "request": config.request.model_dump(mode="json"),
                "engine": _result_settings(config.engine),
                "output": _output(config.output, parsed),
                "input": shards,
            }
        )

    @property
    def parsed(self) -> str | None:
        """What the output's column `parsed` is made by; None where there is no such column."""
        found: str | None = self.record.get("output", {}).get("parsed")
        return found

    @cached_property
    def digest(self) -> str:
        """32 hex digits. Exports ask for it with every row, and the record names every shard."""
        text = json.dumps(self.record, sort_keys=True, separators=(",", ":"))
        return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).hexdigest()

    def differences(self, earlier: Fingerprint) -> list[str]:
        """One line for each dotted key whose value is not what it was in `earlier`."""
        now, then = dict(_leaves(self.record)), dict(_leaves(earlier.record))
        return [
            f"{key}: {_shown(now, key)}, but was {_shown(then, key)}"
            for key in sorted(now.keys() | then.keys())
            if _shown(now, key) != _shown(then, key)
        ]


def _output(output: OutputConfig, parsed: str | None) -> dict[str, Any]:
    """What isn't asked for isn't named: so it was before it could be."""
    vectors = {} if output.embedding == "float32" else {"embedding": output.embedding}
    return {"keep": _kept(output.kept)} | ({"parsed": parsed} if parsed else {}) | vectors


def _kept(names: Mapping[str, str]) -> list[str] | dict[str, str]:
    """A list where no column gets another name: so it was before they could."""
    return list(names) if list(names) == list(names.values()) else dict(names)


def _result_settings(engine: EngineConfig) -> dict[str, Any]:
    settings = engine.model_dump(mode="json")
    # The split of a prompt into batches changes the last bits of its logits; only a reproducible job cares.
    names = _RESULT_SETTINGS + (_REPRODUCIBLE_SETTINGS if engine.reproducible is True else ())
    return {name: settings[name] for name in names}


def _digest(text: str | None) -> str | None:
    return hashlib.sha256(text.encode()).hexdigest() if text is not None else None


def _leaves(record: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    if isinstance(record, Mapping) and record:
        for key, value in record.items():
            yield from _leaves(value, (*path, str(key)))
    else:
        yield ".".join(path), record


def _shown(leaves: dict[str, Any], key: str) -> str:
    return json.dumps(leaves[key], sort_keys=True) if key in leaves else "absent"
