"""What a report says of an output is what its rows say."""

from __future__ import annotations

import math
import tracemalloc
import uuid
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.errors import RowError
from pipeline.input.shards import Chunk
from pipeline.output.committed import CommittedRows
from pipeline.report.label_counts import labels_of
from pipeline.report.row_batch import RowBatch
from pipeline.report.survey import SLOWEST, Survey, columns_to_read
from tests.answered import Answered

LABELS = ["art", "law", "war"]
GOLD = pa.schema({"topic": pa.string()})


def surveyed(job: Answered, gold: str | None = None, rows: int = 7) -> Survey:
    answers = CommittedRows.at(job.url)
    survey = Survey(job.keep.names, gold)
    for shard in sorted(answers.shards):
        for start, table in answers.tables(shard, columns_to_read, rows):
            survey.add(RowBatch(shard, start, table))
    return survey


def url() -> str:
    return f"memory://{uuid.uuid4()}"


@st.composite
def labelled(draw: st.DrawFn) -> tuple[Any, dict[str, str | None]]:
    gold = draw(st.sampled_from([*LABELS, None]))
    if draw(st.integers(0, 9)) == 0:
        return RowError(draw(st.sampled_from(["invalid_request", "server_error"])), "why"), {"topic": gold}
    weights = np.array([draw(st.floats(0.01, 1)) for _ in LABELS])
    shares = dict(zip(LABELS, weights / weights.sum(), strict=True))
    text = draw(st.sampled_from(LABELS))
    labels = {label: math.log(share) for label, share in shares.items()}
    return {"text": f" {text}\n", "labels": labels, "share": shares[text], "label": text}, {"topic": gold}


def third(label: str) -> tuple[Any, dict[str, str | None]]:
    """A right answer with a probability of one third."""
    labels = dict.fromkeys(LABELS, math.log(1 / 3))
    return {"text": label, "labels": labels, "share": 1 / 3, "label": label}, {"topic": label}


@settings(max_examples=40)
@given(st.lists(labelled(), min_size=1, max_size=40))
@example([*[third("art")] * 5, third("law")])  # Its upper bound was 0.9999999999999999.
def test_labels_are_held_against_gold(rows):
    survey = surveyed(Answered(url(), {"a.parquet": rows}, GOLD).finish(), "topic")
    answered = [(answer, kept["topic"]) for answer, kept in rows if isinstance(answer, dict)]
    judged = [(answer, gold) for answer, gold in answered if gold]
    gold = survey.gold
    assert gold is not None
    assert gold.pairs == Counter((known, answer["label"]) for answer, known in judged)
    assert gold.missing == sum(kept["topic"] is None for _, kept in rows)
    assert gold.unanswered == sum(not isinstance(a, dict) and k["topic"] is not None for a, k in rows)
    hits = [answer["label"] == known for answer, known in judged]
    assert gold.accuracy == (pytest.approx(np.mean(hits)) if judged else 0.0)
    if judged:
        shares = np.array([answer["share"] for answer, _ in judged])
        assert gold.brier == pytest.approx(np.mean((shares - hits) ** 2))
        assert gold.calibration_error == pytest.approx(expected_error(shares, np.array(hits)))
        assert gold.interval[0] <= gold.accuracy <= gold.interval[1]
    for miss in gold.misses:
        assert miss.gold != miss.label
    for label, count in survey.labels[""].counts.items():
        own = [answer["share"] for answer, _ in answered if answer["label"] == label]
        assert count.rows == len(own)
        assert count.mean_probability == pytest.approx(np.mean(own))


def expected_error(shares: np.ndarray, hits: np.ndarray) -> float:
    """The usual formula, over ten bins of one width."""
    bins = np.minimum((shares * 10).astype(int), 9)
    gaps = [(bins == b).mean() * abs(shares[bins == b].mean() - hits[bins == b].mean()) for b in set(bins)]
    return float(sum(gaps))


@settings(max_examples=20)
@given(st.lists(labelled(), max_size=30), st.integers(1, 50))
def test_totals_are_those_of_the_rows_whatever_the_batches(rows, size):
    job = Answered(url(), {"a.parquet": rows, "b.parquet": rows[:3]}, GOLD).finish()
    survey = surveyed(job, rows=size)
    everything = [answer for answer, _ in rows + rows[:3]]
    failed = Counter(answer.code for answer in everything if isinstance(answer, RowError))
    assert (survey.tally.rows, survey.tally.failed) == (len(everything), sum(failed.values()))
    assert {code: count for code, count, _ in survey.failures.kinds} == failed
    assert survey.numbers["prompt_tokens"].total == survey.tally.prompt_tokens
    assert survey.retried == sum(failed.values())


@pytest.mark.parametrize(
    ("values", "kind", "answers"),
    [
        ([3, 4, None], pa.int64(), ["3", "5", "3"]),
        ([3.0, 2.5, None], pa.float64(), ["3", "5", "3"]),
        ([True, False, None], pa.bool_(), ["true", "true", "true"]),
        (["a", "b", None], pa.dictionary(pa.int8(), pa.string()), ["a", "a", "a"]),
    ],
)
def test_gold_of_other_types_is_read_as_a_model_would_write_it(values, kind, answers):
    rows = [(answer, {"gold": value}) for answer, value in zip(answers, values, strict=True)]
    gold = surveyed(Answered(url(), {"a.parquet": rows}, pa.schema({"gold": kind})).finish(), "gold").gold
    assert gold is not None
    assert (gold.judged, gold.right, gold.missing) == (2, 1, 1)


def test_free_texts_are_no_labels():
    rows = [(f"a sentence of its own, number {n}", {}) for n in range(50)]
    assert surveyed(Answered(url(), {"a.parquet": rows}).finish()).labels[""].counts == {}


def test_short_answers_that_come_again_are_labels():
    rows = [(("yes", "no", " yes")[n % 3], {}) for n in range(30)]
    counts = surveyed(Answered(url(), {"a.parquet": rows}).finish()).labels[""].counts
    assert {label: count.rows for label, count in counts.items()} == {"yes": 20, "no": 10}
    assert counts["yes"].mean_probability is None


def test_labels_may_be_fields_of_an_answer():
    schema = {
        "type": "object",
        "properties": {"topic": {"enum": LABELS}, "sure": {"type": "boolean"}, "why": {"type": "string"}},
    }
    shape = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    rows = [
        ('{"topic": "art", "sure": true, "why": "a"}', {"topic": "art"}),
        ('{"topic": "law", "sure": true, "why": "b"}', {"topic": "art"}),
        ('{"topic": "law", "sure": false, "why": "c"}', {"topic": "law"}),
        ('{"topic": "law", "sure": false, "why": "d"}', {"topic": None}),
        (RowError("server_error", "why"), {"topic": "war"}),
    ]
    request = {"defaults": {"response_format": shape}}
    survey = surveyed(Answered(url(), {"a.parquet": rows}, GOLD, request=request).finish(), "topic")
    found = {f: {label: c.rows for label, c in counts.counts.items()} for f, counts in survey.labels.items()}
    assert found == {"topic": {"law": 3, "art": 1}, "sure": {"false": 2, "true": 2}}
    assert survey.gold is not None
    assert survey.gold.pairs == {("art", "art"): 1, ("art", "law"): 1, ("law", "law"): 1}
    assert survey.gold.unanswered == 1


def test_of_several_decisions_the_fields_own_labels_count():
    scores = [
        {"path": "a.topic", "label": "art", "probability": 0.6},
        {"path": "a.topic", "label": "law", "probability": 0.4},
        {"path": "a.mood", "label": "art", "probability": 0.9},
    ]
    table = pa.table(
        {
            "status_code": pa.array([200, 200], pa.int16()),
            "text": ["law", "art"],
            "label_logprobs": [scores, scores[2:]],
            "attempts": [1, 1],
        }
    )
    batch = RowBatch("a.parquet", 0, table)
    labels, shares = labels_of(batch, "topic")
    assert (labels.to_pylist(), shares[0]) == (["law", "art"], 0.4)
    assert math.isnan(shares[1])
    assert labels_of(batch, "mood")[0].to_pylist() == ["art", "art"]
    assert labels_of(batch)[1].tolist() == [0.4, 0.9]


def test_the_slowest_rows_are_found_wherever_they_are():
    seconds = np.random.default_rng(3).permutation(500) / 10
    rows = [({"text": "x", "seconds": float(s)}, {}) for s in seconds]
    survey = surveyed(Answered(url(), {"a.parquet": rows[:200], "b.parquet": rows[200:]}).finish())
    assert [s for s, _ in survey.slowest] == pytest.approx(sorted(seconds)[::-1][:SLOWEST])
    slowest = survey.slowest[0][1]
    assert seconds[slowest["row"] + 200 * (slowest["shard"] == "b.parquet")] == seconds.max()


def test_vectors_are_measured_counted_and_mapped():
    draw = np.random.default_rng(4)
    groups = draw.normal(size=(3, 16))
    vectors = [groups[n % 3] + draw.normal(size=16) * 0.1 for n in range(90)]
    vectors += [*vectors[:10], np.zeros(16)]
    rows = [(vector, {"group": f"g{n % 3}"}) for n, vector in enumerate(vectors)]
    rows.append((RowError("invalid_request", "why"), {"group": "g0"}))
    job = Answered(url(), {"a.parquet": rows}, pa.schema({"group": pa.string()}), "embed").finish()
    found = surveyed(job, "group").vectors
    assert (found.count, found.duplicates, found.estimated, found.zeros) == (101, 10, False, 1)
    assert dict(found.dimensions) == {16: 101}
    assert found.norms.most == pytest.approx(max(map(np.linalg.norm, vectors)), rel=1e-5)
    plane = found.map()
    assert plane is not None
    assert plane.points.shape == (101, 2)
    assert sum(plane.explained) > 0.9
    # Three groups in space are three in the plane: each point's nearest neighbour is of its own group.
    own = [place.group for place in plane.places]
    for index in range(90):
        gaps = np.linalg.norm(plane.points - plane.points[index], axis=1)
        gaps[index] = np.inf
        assert own[int(gaps.argmin())] == own[index]
    assert all(0.98 <= pair.cosine < 1 for pair in found.nearest())


def test_vectors_of_several_lengths_are_told_apart():
    rows = [(np.ones(size), {}) for size in (4, 4, 4, 8)]
    found = surveyed(Answered(url(), {"a.parquet": rows}, kind="embed").finish()).vectors
    assert (dict(found.dimensions), found.duplicates) == ({4: 3, 8: 1}, 2)


def test_a_kept_column_may_be_called_as_a_column_of_the_other_kind():
    rows = [("yes", {"embedding": 1.0})] * 4
    job = Answered(url(), {"a.parquet": rows}, pa.schema({"embedding": pa.float64()})).finish()
    assert surveyed(job).labels[""].counts["yes"].rows == 4
    vectors = [(np.ones(4), {"text": "asked", "label_logprobs": 3})] * 4
    kept = pa.schema({"text": pa.string(), "label_logprobs": pa.int64()})
    assert surveyed(Answered(url(), {"a.parquet": vectors}, kept, "embed").finish()).vectors.count == 4


def test_memory_does_not_grow_with_rows(monkeypatch):
    monkeypatch.setattr("pipeline.report.spread.SAMPLE", 2000)
    monkeypatch.setattr("pipeline.report.vectors.MAPPED", 500)
    rows = [({"text": f"word {n}" * 9, "seconds": n / 9}, {"topic": "law"}) for n in range(400)]
    job = Answered(url(), {"a.parquet": rows}, GOLD)
    texts = RowBatch("a.parquet", 0, job.table(Chunk("a.parquet", 0, 400)))
    vectors = [(np.random.default_rng(n).normal(size=8), {"topic": "law"}) for n in range(400)]
    other = Answered(url(), {"b.parquet": vectors}, GOLD, "embed")
    places = RowBatch("b.parquet", 0, other.table(Chunk("b.parquet", 0, 400)))
    survey, sizes = Survey(["topic"], "topic"), []
    tracemalloc.start()
    for number in range(80):
        survey.add(texts)
        if number % 4 == 0:
            survey.add(places)
        if number in (39, 79):
            sizes.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert survey.tally.rows == 100 * 400
    assert sizes[1] < sizes[0] + 100_000
