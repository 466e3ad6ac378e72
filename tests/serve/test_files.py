"""`/v1/files` with the `openai` package."""

from __future__ import annotations

import time

import httpx
import openai
import pytest

from pipeline.serve.batches.office import Office
from pipeline.serve.routes.files import files_router
from tests.serve.batching import Clock, batching, client
from tests.serve.live import live


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    with batching(tmp_path_factory.mktemp("data")) as made:
        yield made


@pytest.fixture(scope="module")
def ai(made):
    with client(made) as made_client:
        yield made_client


@pytest.mark.parametrize("content", [b"", b"{}\n", bytes(range(256)) * 20_000])
def test_a_file_comes_back_as_it_was_sent(ai, content):
    file = ai.files.create(file=("näme.jsonl", content), purpose="batch")
    assert (file.object, file.bytes, file.filename, file.status) == (
        "file",
        len(content),
        "näme.jsonl",
        "processed",
    )
    assert ai.files.retrieve(file.id) == file
    assert ai.files.content(file.id).content == content
    assert ai.files.delete(file.id).deleted
    for ask in (ai.files.retrieve, ai.files.content, ai.files.delete):
        with pytest.raises(openai.NotFoundError):
            ask(file.id)


@pytest.mark.parametrize("id", ["file-x", "..%2F..%2Fopen", "file-" + "0" * 24, "batch_" + "0" * 24])
def test_any_other_id_is_not_found(made, id):
    for path in (f"files/{id}", f"files/{id}/content", f"batches/{id}"):
        found = httpx.get(f"{made.url}/v1/{path}")
        assert found.status_code == 404 and found.json()["error"]["message"]


def test_lists_come_in_pages(tmp_path):
    with batching(tmp_path) as made, client(made) as ai:
        ids = []
        for number in range(5):
            ids.append(ai.files.create(file=(f"{number}.jsonl", b"{}"), purpose="batch").id)
            time.sleep(0.002)
        assert [file.id for file in ai.files.list()] == ids[::-1]
        assert [file.id for file in ai.files.list(limit=2, order="asc")] == ids
        assert [file.id for file in ai.files.list(limit=2, purpose="batch")] == ids[::-1]
        assert list(ai.files.list(purpose="batch_output")) == []
        page = ai.files.list(limit=2, after=ids[3], order="desc")
        assert [file.id for file in page.data] == [ids[2], ids[1]] and page.has_more


def test_a_file_that_expires_is_gone(tmp_path):
    clock = Clock()
    with batching(tmp_path, clock=clock) as made, client(made) as ai:
        kept = ai.files.create(file=("a", b"{}"), purpose="batch")
        file = ai.files.create(
            file=("a", b"{}"), purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600}
        )
        assert file.expires_at - file.created_at == 3600
        assert ai.files.retrieve(file.id).id == file.id
        clock.ahead = 3601
        with pytest.raises(openai.NotFoundError):
            ai.files.retrieve(file.id)
        assert [file.id for file in ai.files.list()] == [kept.id]
        assert not list(tmp_path.rglob(f"*{file.id}/*"))


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"purpose": "fine-tune"}, "purpose"),
        ({"purpose": "batch", "extra_body": {"colour": "red"}}, "colour"),
        ({"purpose": "batch", "expires_after": {"anchor": "now", "seconds": 3600}}, "expires_after.anchor"),
        (
            {"purpose": "batch", "expires_after": {"anchor": "created_at", "seconds": 5}},
            "expires_after.seconds",
        ),
    ],
)
def test_a_wrong_form_is_refused(ai, asked, param):
    with pytest.raises(openai.BadRequestError) as refused:
        ai.files.create(file=("a", b"{}"), **asked)
    assert refused.value.param == param


@pytest.mark.parametrize(
    "asked",
    [
        {"json": {}},
        {"data": {"purpose": "batch"}, "files": {"other": b"x"}},
        {"data": {"purpose": "batch", "file": "text"}, "files": {}},
        {"content": b"--x", "headers": {"content-type": "multipart/form-data; boundary=y"}},
        {"content": b"--x", "headers": {"content-type": "multipart/form-data"}},
        {"files": [("file", b"a"), ("file", b"b")], "data": {"purpose": "batch"}},
    ],
)
def test_what_is_no_form_with_one_file_is_refused(made, asked):
    refused = httpx.post(f"{made.url}/v1/files", **asked)
    assert refused.status_code == 400 and refused.json()["error"]["param"]


def test_a_file_that_is_too_large_is_refused(tmp_path):
    office = Office(str(tmp_path), most_bytes=1000)
    with live(routers=[files_router(office)]) as made, client(made) as ai:
        ai.files.create(file=("a", b"x" * 1000), purpose="batch")
        for size in (1001, 500_000):
            with pytest.raises(openai.APIStatusError) as refused:
                ai.files.create(file=("a", b"x" * size), purpose="batch")
            assert refused.value.status_code == 413

        def parts():
            yield b'--y\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
            yield b"x" * 500_000

        form = {"content-type": "multipart/form-data; boundary=y"}
        assert httpx.post(f"{made.url}/v1/files", content=parts(), headers=form).status_code == 413
        assert len(list(ai.files.list())) == 1
