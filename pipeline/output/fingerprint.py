"""What a job's results depend on: two jobs of one digest may share one output, whatever shards they have."""

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
from pipeline.output.sources import Entry, entry_of, identity_of, source_of

_RESULT_SETTINGS = ("reproducible", "context", "kv_type", "flash_attention")
_REPRODUCIBLE_SETTINGS = ("batch", "ubatch")

FORMAT = 2
"""Of the records that are written. In format 1, all of an output's files were bound to all of its input."""


@dataclass(frozen=True)
class Fingerprint:
    """record: JSON values only; where the input and the model lie is not part of it.

    Its section input has the job's shards, which are no part of the digest. format: of the output's records.
    """

    record: Mapping[str, Any]
    format: int = FORMAT

    @classmethod
    def recorded(cls, record: Mapping[str, Any]) -> Fingerprint:
        """The fingerprint that a record, or `_SUCCESS`, holds."""
        return cls(record.get("record", {}), int(record.get("format", 1)))

    @classmethod
    def of(
        cls, config: JobConfig, model_sha256: str, plans: Iterable[ShardPlan], parsed: str | None = None
    ) -> Fingerprint:
        """The fingerprint of a job over the planned shards with the model of that hash.

        parsed: what the column `parsed` is made by, where there is one.
        Raises ModelError where the job's chat template can't be read.
        """
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
                "input": {plan.shard.name: entry_of(plan) for plan in plans},
            }
        )

    @property
    def parsed(self) -> str | None:
        """What the output's column `parsed` is made by; None where there is no such column."""
        found: str | None = self.record.get("output", {}).get("parsed")
        return found

    @property
    def shards(self) -> Mapping[str, Entry]:
        """The job's shards by name."""
        found: Mapping[str, Entry] = self.record.get("input", {})
        return found

    @property
    def job(self) -> dict[str, Any]:
        """The record without the shards."""
        return {name: section for name, section in self.record.items() if name != "input"}

    def with_shards(self, shards: Mapping[str, Entry], format: int = FORMAT) -> Fingerprint:
        """The same job over these shards."""
        return Fingerprint({**self.record, "input": dict(shards)}, format)

    @cached_property
    def digest(self) -> str:
        """32 hex digits, of the job without its shards. Exports ask for it with every row."""
        record = self.record if self.format == 1 else self.job
        text = json.dumps(record, sort_keys=True, separators=(",", ":"))
        return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).hexdigest()

    def source(self, shard: str) -> str | None:
        """What the footers of a shard's answers must name as source; None for one that isn't the job's."""
        entry = self.shards.get(shard)
        if entry is None:
            return None
        return "" if self.format == 1 else source_of(entry)

    def differences(self, earlier: Fingerprint) -> list[str]:
        """One line for each dotted key whose value is not what it was in `earlier`."""
        now, then = dict(_leaves(self._compared)), dict(_leaves(earlier._compared))
        return [
            f"{key}: {_shown(now, key)}, but was {_shown(then, key)}"
            for key in sorted(now.keys() | then.keys())
            if _shown(now, key) != _shown(then, key)
        ]

    @property
    def _compared(self) -> dict[str, Any]:
        return {**self.job, "input": {name: identity_of(entry) for name, entry in self.shards.items()}}


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
