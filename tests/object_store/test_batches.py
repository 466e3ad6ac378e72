"""Files and batches of a service that lie on S3."""

from __future__ import annotations

from pipeline.files.storage import Storage
from tests.serve.batching import batching, chats, client, ended, jsonl, line, results, submitted


def test_a_batch_lies_on_s3(storage: Storage) -> None:
    with batching(storage.url) as made, client(made) as ai:
        asked = submitted(ai, jsonl([*chats(3), line("hot", temperature=9)]))
    with batching(storage.url) as made, client(made) as ai:
        batch = ended(ai, asked.id, 60)
        assert batch.status == "completed"
        assert results(ai, batch.output_file_id).keys() == {f"row-{number}" for number in range(3)}
        assert results(ai, batch.error_file_id).keys() == {"hot"}
        assert [found.id for found in ai.batches.list()] == [asked.id]
        assert len(list(ai.files.list())) == 3
        ai.files.delete(batch.output_file_id)
    left = [name.split("/")[-1] for name in storage.list("owners")]
    assert sorted(left) == sorted(
        ["content.jsonl", "meta.json"] * 2
        + [f"{mark}.json" for mark in ("request", "validated", "ending", "finished")]
    )
    assert list(storage.list("open")) == []
