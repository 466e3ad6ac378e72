"""Why rows failed: counted by code, the commonest reasons with their message and a row."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from pipeline.failures import MOST_REASONS, Failures, Reason
from pipeline.output.verify import verify
from pipeline.report.status import status
from pipeline.report.summary import Summary
from tests.given_job import FINE, Job

reasons = st.builds(
    Reason,
    st.sampled_from(["invalid_request", "server_error", "model_not_found"]),
    st.sampled_from([f"{letter} must be below 5, not {n}" for letter in "abcdefghijkl" for n in (6, 77)]),
    st.just(1),
    st.sampled_from(["a.parquet", "b.parquet"]),
    st.text(max_size=5),
)
lists = st.lists(reasons, max_size=30)


@given(lists, lists)
def test_codes_are_counted_exactly_and_reasons_are_bounded(some: list[Reason], others: list[Reason]) -> None:
    both = Failures.of(some) + Failures.of(others)
    assert dict(both.codes) == Counter(reason.code for reason in [*some, *others])
    assert len(both.reasons) <= MOST_REASONS
    assert [r.rows for r in both.reasons] == sorted((r.rows for r in both.reasons), reverse=True)
    assert all(replace(reason, rows=1) in [*some, *others] for reason in both.reasons)
    assert Failures.from_dict(json.loads(json.dumps(both.to_dict(), sort_keys=True))) == both


@given(lists)
def test_rows_of_one_reason_are_one_line_whatever_their_values(some: list[Reason]) -> None:
    kinds = Counter((reason.code, reason.message[0]) for reason in some)
    assert {(r.code, r.message[0]): r.rows for r in Failures.of(some).reasons}.items() <= kinds.items()


def test_long_messages_and_names_are_cut() -> None:
    (reason,) = Failures.of([Reason("server_error", "m" * 10**6, 1, "s", "n" * 10**6)]).reasons
    assert len(str(reason)) < 500


def test_the_summary_and_the_status_show_the_message_and_an_example() -> None:
    """nightherd's issue 12: rows failed, and only their number was said."""
    job = Job({"a.parquet": [FINE] * 9 + [("error", "invalid_request")] * 2, "b.parquet": [FINE]})
    lines = ["invalid_request: 2 rows", "2 x it says why (for example 'a.parquet:9' in a.parquet)"]
    job.commit("a.parquet")
    assert all(line in str(status(job.url)) for line in lines)
    job.commit("b.parquet")
    totals = job.manifest.finish([*job.plans.values()])
    assert all(line in str(status(job.url)) for line in lines)
    assert all(line in str(Summary("job", "out", shards=2, totals=totals)) for line in lines)
    assert verify(job.url).problems == []


def test_what_a_retry_mends_is_no_failure_any_more() -> None:
    job = Job({"a.parquet": [FINE, ("error", "invalid_request")]}).finish()
    assert not job.manifest.footer("responses/a.parquet").kept.errors
