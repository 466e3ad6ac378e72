"""`nightherd diff`: two outputs over the same rows, compared; as text, as JSON, and for a page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipeline.errors import ConfigError
from pipeline.output.committed import CommittedRows
from pipeline.report.comparison import Comparison
from pipeline.report.formats import cut
from pipeline.report.pairing import Pairing
from pipeline.report.row_batch import RowBatch

_ROWS = 512
_SHOWN = 10
_UNREAD = {"id", "object", "model", "system_fingerprint", "data", "parsed", "created"}

Tell = Callable[[int, int], None]


@dataclass(frozen=True)
class Diff:
    """What changed from one output to another.

    settings: one line for each key of the jobs that differs.
    only_before, only_after: shards that only one has.
    rows_before, rows_after: rows that only one has, of the shards that both have.
    """

    before: CommittedRows
    after: CommittedRows
    settings: list[str]
    only_before: list[str]
    only_after: list[str]
    found: Comparison = field(default_factory=Comparison)
    rows_before: int = 0
    rows_after: int = 0

    @property
    def unfinished(self) -> list[str]:
        """The outputs whose job isn't finished."""
        return [side.manifest.output.url for side in (self.before, self.after) if not side.finished]


def diff(before_url: str, after_url: str, tell: Tell = lambda done, rows: None) -> Diff:
    """Compares two outputs, row by row; rows are matched by shard and custom_id.

    tell: called with the rows compared so far, and all rows. Raises OutputError where there is no job or an
    answer is damaged, ConfigError where the two have no shard in common, or one has vectors and one texts.
    """
    before, after = CommittedRows.at(before_url), CommittedRows.at(after_url)
    shared = sorted(before.shards.keys() & after.shards.keys())
    if not shared:
        raise ConfigError(
            f"{before_url} and {after_url} have no shard in common: {', '.join(sorted(before.shards)[:3])} "
            f"in the one, {', '.join(sorted(after.shards)[:3])} in the other"
        )
    found, rows = Comparison(), sum(before.shards[name] for name in shared)
    pairings = [_compare(before, after, shard, found, lambda done: tell(done, rows)) for shard in shared]
    return Diff(
        before,
        after,
        _differences(before, after),
        sorted(before.shards.keys() - after.shards.keys()),
        sorted(after.shards.keys() - before.shards.keys()),
        found,
        sum(pairing.first_only for pairing in pairings),
        sum(pairing.second_only for pairing in pairings),
    )


def as_json(result: Diff) -> dict[str, Any]:
    """The difference as JSON values."""
    found = result.found
    return {
        "outputs": [side.manifest.output.url for side in (result.before, result.after)],
        "unfinished": result.unfinished,
        "settings": result.settings,
        "rows": found.rows,
        "rows_only_in": [result.rows_before, result.rows_after],
        "shards_only_in": [result.only_before, result.only_after],
        "same": found.same,
        "changed": found.changed,
        "agreement": found.agreement,
        "answered_only_in": [found.lost, found.won],
        "unanswered": found.unanswered,
        "errors": [dict(errors) for errors in found.errors],
        "labels": [{"from": a, "to": b, "rows": rows} for a, b, rows in found.label_changes],
        "cosine": _cosines(found),
        "prompt_tokens": [found.before.prompt_tokens, found.after.prompt_tokens],
        "completion_tokens": [found.before.completion_tokens, found.after.completion_tokens],
        "cached_tokens": [found.before.cached_tokens, found.after.cached_tokens],
        "seconds": [round(seconds, 3) for seconds in found.seconds],
        "examples": [
            {
                "custom_id": change.custom_id,
                "shard": change.shard,
                "before": change.before,
                "after": change.after,
                "probability": list(change.probability),
            }
            for change in found.examples
        ],
    }


def as_text(result: Diff) -> str:
    """The difference for a terminal."""
    found = result.found
    return "\n".join([*_head(result), *_answers(found), *_labels(found), *costs(found), *_examples(found)])


def costs(found: Comparison) -> list[str]:
    """Tokens and time of the rows that both have, a line for each."""

    def line(name: str, before: float, after: float, digits: int = 0) -> str:
        change = f" ({(after - before) / before:+.1%})" if before else ""
        return f"{name}: {before:,.{digits}f} -> {after:,.{digits}f}{change}"

    one, other = found.before, found.after
    lines = [
        line("tokens in", one.prompt_tokens, other.prompt_tokens),
        line("  of them cached", one.cached_tokens, other.cached_tokens),
        line("tokens out", one.completion_tokens, other.completion_tokens),
    ]
    if any(found.seconds):
        lines.append(line("seconds in the engine, summed over rows", *found.seconds, digits=1))
    return lines


def _compare(
    before: CommittedRows, after: CommittedRows, shard: str, found: Comparison, tell: Callable[[int], None]
) -> Pairing:
    pairing = Pairing()
    for one, other in pairing.pairs(_tables(before, shard), _tables(after, shard)):
        batches = RowBatch(shard, 0, one), RowBatch(shard, 0, other)
        kinds = ["vectors" if batch.has("embedding") else "texts" for batch in batches]
        if kinds[0] != kinds[1]:
            raise ConfigError(
                f"{before.manifest.output.url} holds {kinds[0]} and {after.manifest.output.url} {kinds[1]}: "
                "they can't be compared"
            )
        found.add(*batches)
        tell(found.rows)
    return pairing


def _tables(answers: CommittedRows, shard: str) -> Iterator[pa.Table]:
    def wanted(schema: pa.Schema) -> list[str]:
        return [name for name in schema.names if name not in _UNREAD]

    return (table for _, table in answers.tables(shard, wanted, _ROWS) if len(table))


def _differences(before: CommittedRows, after: CommittedRows) -> list[str]:
    return after.manifest.fingerprint.differences(before.manifest.fingerprint)


def _cosines(found: Comparison) -> dict[str, float] | None:
    spread = found.cosines
    if not spread.count:
        return None
    return {"least": spread.least, "mean": spread.mean, "median": spread.quantile(0.5)}


def _head(result: Diff) -> Iterator[str]:
    urls = [side.manifest.output.url for side in (result.before, result.after)]
    yield f"{urls[0]} -> {urls[1]}: {result.found.rows:,} rows in both"
    for url, rows, shards in zip(
        urls,
        (result.rows_before, result.rows_after),
        (result.only_before, result.only_after),
        strict=True,
    ):
        if rows:
            yield f"  {rows:,} rows only in {url}"
        if shards:
            yield f"  {len(shards):,} shards only in {url}: {_listed(shards)}"
    for url in result.unfinished:
        yield f"  {url} is not finished"
    yield "the jobs differ in:" if result.settings else "the jobs have the same settings, model and input"
    yield from (f"  {cut(line, 300)}" for line in result.settings[:_SHOWN])
    if len(result.settings) > _SHOWN:
        yield f"  and {len(result.settings) - _SHOWN} more keys"


def _answers(found: Comparison) -> Iterator[str]:
    if found.agreement is not None:
        yield f"answers: {found.same:,} the same ({found.agreement:.1%}), {found.changed:,} changed"
    if found.cosines.count:
        yield (
            f"cosines of the vectors: {found.cosines.least:.4f} at least, {found.cosines.mean:.4f} on average"
        )
    if found.lost or found.won:
        yield f"answered only before: {found.lost:,}; only after: {found.won:,}"
    if found.unanswered:
        yield f"an error in both: {found.unanswered:,}"
    for when, errors in zip(("before", "after"), found.errors, strict=True):
        if errors:
            yield f"errors {when}: " + ", ".join(f"{code} {rows:,}" for code, rows in errors.most_common())


def _labels(found: Comparison) -> Iterator[str]:
    changes = found.label_changes
    if changes:
        yield "labels that changed:"
        yield from (
            f"  {cut(a, 40)} -> {cut(b, 40)}: {rows:,} row{'s' * (rows > 1)}"
            for a, b, rows in changes[:_SHOWN]
        )
    if len(changes) > _SHOWN:
        yield f"  and {len(changes) - _SHOWN} rarer changes"


def _examples(found: Comparison) -> Iterator[str]:
    if found.examples:
        yield "some rows that changed:"
    for change in found.examples[:_SHOWN]:
        before, after = (_one_line(said, share) for said, share in _sides(change))
        yield f"  {change.custom_id}: {before + ' -> ' if before else ''}{after}"


def _sides(change: Any) -> list[tuple[str, float | None]]:
    return list(zip((change.before, change.after), change.probability, strict=True))


def _one_line(said: str, share: float | None) -> str:
    text = cut(" ".join(said.split()), 80)
    return text if share is None else f"{text} ({share:.2f})"


def _listed(names: list[str]) -> str:
    return ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")
