"""An S3 server, and a folder on it for each test."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import moto.s3.models
import pytest
import s3fs

from pipeline.files import retries
from pipeline.files.aside import temporary_folder
from pipeline.files.storage import Storage
from tests.s3_server import S3Server
from tests.writers import lower_part_size


@pytest.fixture(scope="package")
def running() -> Iterator[S3Server]:
    with S3Server().running() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        patch.setattr(s3fs.S3FileSystem, "retries", 1)
        patch.setattr(moto.s3.models, "S3_UPLOAD_PART_MIN_SIZE", 1000)
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().makedirs("bucket", exist_ok=True)
        yield server
        s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def server(running: S3Server) -> Iterator[S3Server]:
    running.requests.clear()
    yield running
    running.heal()


@pytest.fixture
def storage(server: S3Server) -> Storage:
    return Storage.at(f"s3://bucket/{uuid.uuid4().hex}/out")


@pytest.fixture
def in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of more than 400 KB are uploaded in parts."""
    lower_part_size(monkeypatch.setattr)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "sleep", lambda seconds: None)


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """This machine's folder for temporary files, for this process and its children."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    temporary_folder.cache_clear()
    yield folder
    temporary_folder.cache_clear()
