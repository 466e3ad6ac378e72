"""Whatever happens to a batch, in whatever order, its status only goes forward."""

from __future__ import annotations

import tempfile
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.files.storage import Storage
from pipeline.serve.batches import marks
from pipeline.serve.batches.batch import BatchRequest
from pipeline.serve.batches.batch_store import BatchStore
from pipeline.serve.batches.ids import BATCH, new_id

FINAL = {"completed", "failed", "expired", "cancelled"}
NEXT = {
    "validating": {"in_progress", "finalizing", "cancelling", "failed"},
    "in_progress": {"finalizing", "cancelling", "failed"},
    "finalizing": {"completed", "expired"},
    "cancelling": {"cancelled"},
} | {final: set() for final in FINAL}
OUTCOMES = st.sampled_from(sorted(FINAL))
ACTIONS = st.lists(
    st.one_of(st.just(("validate", "")), st.just(("finish", "")), st.tuples(st.just("end"), OUTCOMES)),
    max_size=8,
)


@settings(max_examples=60, deadline=None)
@given(ACTIONS)
def test_a_status_only_goes_forward(actions):
    with tempfile.TemporaryDirectory() as folder:
        store = BatchStore(Storage.at(folder), lambda: 10.0)
        asked = BatchRequest(new_id(BATCH, 1), "ann", "/v1/completions", "file-0", "24h", 1, 9, {"a": "b"})
        place = store.place("ann", asked.id)
        marks.put(store.data, f"{place.path}/request.json", asked.record)
        bodies, first = [body(store, asked)], None
        for name, outcome in actions:
            if name == "validate":
                store.validate(place, 3, "m")
            elif name == "end":
                # The first one counts, and all are told of it.
                first = first or outcome
                assert store.end(place, outcome) == first
            elif first:  # Nobody finishes what isn't decided.
                store.finish(place, completed=2, failed=1, usage=None)
            bodies.append(body(store, asked))
        for before, after in pairwise(bodies):
            status = after["status"]
            assert status == before["status"] or status in NEXT[before["status"]]
            kept = {name: at for name, at in before.items() if name.endswith("_at") and at is not None}
            assert kept.items() <= after.items(), "a time has changed"
        last = bodies[-1]
        assert {final for final in FINAL if last[f"{final}_at"]} == {last["status"]} & FINAL
        assert last["metadata"] == {"a": "b"} and last["request_counts"] is not None


def body(store: BatchStore, asked: BatchRequest) -> dict:
    found = store.find("ann", asked.id)
    assert found
    return found.body
