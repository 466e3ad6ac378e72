"""Counts add up, come back from their records, and from those of older versions."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.output.footer import Footer
from pipeline.output.manifest import Manifest
from pipeline.output.records import SUCCESS, USAGE, USAGE_SCHEMA, read_record
from pipeline.output.verify import verify
from pipeline.report.summary import Summary
from pipeline.tally import Tally
from tests.given_job import FINE, Job

counts = st.integers(0, 10**9)
tallies = st.builds(Tally, *[counts] * 7, seconds=st.integers(0, 10**6).map(float), reused=counts)


@given(tallies, tallies)
def test_sums_are_sums_of_every_field(a: Tally, b: Tally) -> None:
    for field in fields(Tally):
        assert getattr(a + b, field.name) == getattr(a, field.name) + getattr(b, field.name)


@given(tallies)
def test_a_tally_comes_back_from_its_record(tally: Tally) -> None:
    assert Tally.from_dict(json.loads(json.dumps(tally.to_dict()))) == tally


@given(tallies)
def test_records_of_older_versions_know_of_no_reused_rows(tally: Tally) -> None:
    old = tally.to_dict()
    del old["reused"]
    assert Tally.from_dict(old) == replace(tally, reused=0)
    footer = json.loads(Footer("f", "s", 0, 1, tally).to_bytes()) | {"tally": old}
    assert Footer.from_bytes(json.dumps(footer).encode()).tally == replace(tally, reused=0)


@pytest.mark.parametrize("missing", ["rows", "cached_tokens", "seconds"])
def test_what_every_version_wrote_may_not_be_absent(missing: str) -> None:
    record = Tally().to_dict()
    del record[missing]
    with pytest.raises(KeyError, match=missing):
        Tally.from_dict(record)


def reusing(reused: int) -> Manifest:
    """A finished job of nine rows, of which so many were reused."""
    job = Job({"a.parquet": [FINE] * 9})
    plan = job.plans["a.parquet"]
    job.commit("a.parquet", reused=reused)
    job.manifest.finish([plan])
    return job.manifest


def test_reused_rows_reach_the_jobs_record_and_not_the_table_of_usage() -> None:
    manifest = reusing(4)
    assert verify(manifest.output.url).problems == []
    success = read_record(manifest.output, SUCCESS)
    assert success and success["totals"]["reused"] == 4
    usage = manifest.table(USAGE)
    assert usage.schema == USAGE_SCHEMA
    assert "reused" not in usage.schema.names


def test_an_output_of_an_older_version_is_sound() -> None:
    manifest = reusing(0)
    success = read_record(manifest.output, SUCCESS)
    assert success
    del success["totals"]["reused"]
    manifest.output.replace(SUCCESS, json.dumps(success).encode())
    assert verify(manifest.output.url).problems == []


@pytest.mark.parametrize(
    ("reused", "line"),
    [
        (0, None),
        (1, "1 row was equal to an earlier one and not computed again"),
        (1204, "1,204 rows were equal to earlier ones and not computed again"),
    ],
)
def test_the_summary_tells_how_many_rows_were_reused(reused: int, line: str | None) -> None:
    lines = [
        text.strip()
        for text in str(Summary("job", "out", shards=1, totals=Tally(reused=reused))).splitlines()
    ]
    assert [text for text in lines if "equal to" in text] == ([line] if line else [])
