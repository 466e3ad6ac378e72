"""The model's file: found or fetched once per node, checked, and every failure explained."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from pipeline.config import ModelConfig
from pipeline.errors import ModelError
from pipeline.model import remote_model
from pipeline.model.models import LocalModel, default_cache, fetch_model
from pipeline.model.parts import model_name
from pipeline.model.repack import repacked

CONTENT = b"GGUF" + bytes(range(256)) * 64
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class CountedFileSystem(LocalFileSystem):
    """A remote made of a local folder, which notes each download in a file beside the source."""

    protocol = "counted"
    truncate = False
    failures = 0

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.removeprefix("counted://"))

    def get_file(self, path: str, target: str, **_: Any) -> None:
        with Path(path + ".log").open("a") as log:
            log.write("download\n")
        if type(self).failures:
            type(self).failures -= 1
            Path(target).write_bytes(b"GGUF half")
            raise OSError("connection reset")
        data = Path(path).read_bytes()
        Path(target).write_bytes(data[: len(data) // 2] if self.truncate else data)


fsspec.register_implementation("counted", CountedFileSystem, clobber=True)


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(remote_model, "_PAUSES", (0.0, 0.0, 0.0))
    path = tmp_path / "remote" / "model.gguf"
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    yield path
    CountedFileSystem.truncate, CountedFileSystem.failures = False, 0


def downloads(remote: Path) -> int:
    log = Path(f"{remote}.log")
    return len(log.read_text().splitlines()) if log.exists() else 0


def fetch(path: object, cache: Path, sha256: str | None = None) -> LocalModel:
    return fetch_model(ModelConfig(path=str(path), sha256=sha256), cache)


def fetch_in_child(url: str, cache: Path) -> LocalModel:
    return fetch(url, cache)


def leftovers(cache: Path) -> list[str]:
    return [f.name for f in cache.rglob("*") if f.suffix in (".gguf", ".part")]


def test_a_local_file_is_used_where_it_is(remote: Path, tmp_path: Path) -> None:
    for path in (remote, f"file://{remote}"):
        assert fetch(path, tmp_path / "cache") == LocalModel(remote, SHA256, len(CONTENT))


def test_a_right_hash_passes_in_either_case(remote: Path, tmp_path: Path) -> None:
    assert fetch(remote, tmp_path / "cache", SHA256.upper()).sha256 == SHA256


def test_a_hash_is_computed_once_until_the_file_changes(
    remote: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch(remote, tmp_path / "cache")
    with monkeypatch.context() as patch:
        patch.delattr(hashlib, "file_digest")
        assert fetch(remote, tmp_path / "cache").sha256 == SHA256
    remote.write_bytes(CONTENT + b"more")
    assert fetch(remote, tmp_path / "cache").sha256 == hashlib.sha256(CONTENT + b"more").hexdigest()


def test_any_fsspec_url_is_fetched(tmp_path: Path) -> None:
    fsspec.filesystem("memory").pipe("/models/tiny.gguf", CONTENT)
    model = fetch("memory://models/tiny.gguf", tmp_path)
    assert (model.path.name, model.path.read_bytes()) == ("tiny.gguf", CONTENT)
    assert (model.sha256, model.size) == (SHA256, len(CONTENT))


def test_a_second_fetch_reuses_the_first(remote: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert fetch(f"counted://{remote}", cache) == fetch(f"counted://{remote}", cache)
    assert downloads(remote) == 1


def test_a_changed_remote_is_fetched_again(remote: Path, tmp_path: Path) -> None:
    fetch(f"counted://{remote}", tmp_path / "cache")
    changed = CONTENT[::-1].replace(CONTENT[::-1][:4], b"GGUF", 1)
    remote.write_bytes(changed)
    os.utime(remote, (1, 1))
    assert fetch(f"counted://{remote}", tmp_path / "cache").path.read_bytes() == changed
    assert downloads(remote) == 2


def test_a_damaged_copy_is_fetched_again(remote: Path, tmp_path: Path) -> None:
    fetch(f"counted://{remote}", tmp_path / "cache").path.write_bytes(b"GGUF cut")
    assert fetch(f"counted://{remote}", tmp_path / "cache").sha256 == SHA256


def test_a_pinned_copy_needs_no_remote(remote: Path, tmp_path: Path) -> None:
    first = fetch(f"counted://{remote}", tmp_path / "cache", SHA256)
    remote.unlink()
    assert fetch(f"counted://{remote}", tmp_path / "cache", SHA256) == first


def test_eight_processes_on_a_cold_cache_make_one_download(remote: Path, tmp_path: Path) -> None:
    url = f"counted://{remote}"
    with multiprocessing.get_context("spawn").Pool(8) as pool:
        models = pool.starmap(fetch_in_child, [(url, tmp_path / "cache")] * 8, chunksize=1)
    assert {model.sha256 for model in models} == {SHA256}
    assert len({model.path for model in models}) == 1
    assert downloads(remote) == 1


def test_a_passing_fault_is_tried_again(remote: Path, tmp_path: Path) -> None:
    CountedFileSystem.failures = 2
    assert fetch(f"counted://{remote}", tmp_path / "cache").sha256 == SHA256
    assert downloads(remote) == 3


def test_a_lasting_fault_is_explained_and_leaves_nothing(remote: Path, tmp_path: Path) -> None:
    CountedFileSystem.failures = 99
    with pytest.raises(ModelError, match=r"failed 3 times: OSError: connection reset.*NIGHTHERD_CACHE"):
        fetch(f"counted://{remote}", tmp_path / "cache")
    assert leftovers(tmp_path / "cache") == []


def test_a_truncated_download_is_never_seen(remote: Path, tmp_path: Path) -> None:
    CountedFileSystem.truncate = True
    with pytest.raises(ModelError, match=f"{len(CONTENT) // 2} bytes arrived of {len(CONTENT)}"):
        fetch(f"counted://{remote}", tmp_path / "cache")
    assert leftovers(tmp_path / "cache") == []


@pytest.mark.parametrize("scheme", ["", "counted://"])
def test_a_wrong_hash_names_both(remote: Path, tmp_path: Path, scheme: str) -> None:
    with pytest.raises(ModelError, match=rf"{SHA256}.*model\.sha256.*{'0' * 64}"):
        fetch(f"{scheme}{remote}", tmp_path / "cache", "0" * 64)
    assert leftovers(tmp_path / "cache") == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"not a GGUF file \(it begins with b''\)"),
        (b"PK\x03\x04zip", "not a GGUF file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer: run git lfs pull"),
        (b"\n<!doctype html>", "web page"),
    ],
)
@pytest.mark.parametrize("scheme", ["", "counted://"])
def test_what_is_not_a_gguf_is_refused(
    remote: Path, tmp_path: Path, scheme: str, content: bytes, message: str
) -> None:
    remote.write_bytes(content)
    with pytest.raises(ModelError, match=message):
        fetch(f"{scheme}{remote}", tmp_path / "cache")
    assert leftovers(tmp_path / "cache") == []


def split(remote: Path, parts: int) -> list[Path]:
    """The remote in so many parts: as bytes, for what fetches and hashes them."""
    size = len(CONTENT) // parts + 1
    files = [remote.with_name(f"big-{n + 1:05}-of-{parts:05}.gguf") for n in range(parts)]
    for n, file in enumerate(files):
        file.write_bytes(b"GGUF" + CONTENT[n * size : (n + 1) * size])
    return files


@pytest.mark.parametrize("scheme", ["", "file://", "counted://"])
@pytest.mark.parametrize("named", [0, 2])
def test_any_part_names_a_split_model(remote: Path, tmp_path: Path, scheme: str, named: int) -> None:
    parts = split(remote, 3)
    joined = b"".join(part.read_bytes() for part in parts)
    sha256 = hashlib.sha256(joined).hexdigest()
    for _ in range(2):
        found = fetch(f"{scheme}{parts[named]}", tmp_path / "cache", sha256)
        assert (found.sha256, found.size, found.parts) == (sha256, len(joined), 3)
        assert found.path.name == parts[0].name
        beside = [found.path.with_name(part.name) for part in parts]
        assert [part.read_bytes() for part in beside] == [part.read_bytes() for part in parts]
    if scheme == "counted://":
        assert [downloads(part) for part in parts] == [1, 1, 1]
    parts[1].write_bytes(b"GGUF other")
    with pytest.raises(ModelError, match="has the SHA-256"):
        fetch(f"{scheme}{parts[named]}", tmp_path / "cache", sha256)


@pytest.mark.parametrize("scheme", ["", "counted://"])
def test_a_part_that_is_absent_is_named(remote: Path, tmp_path: Path, scheme: str) -> None:
    parts = split(remote, 3)
    parts[1].unlink()
    with pytest.raises(ModelError, match=r"big-00002-of-00003\.gguf.*: no such file"):
        fetch(f"{scheme}{parts[0]}", tmp_path / "cache")


def test_one_part_of_one_is_a_whole_model(remote: Path, tmp_path: Path) -> None:
    """As vllm-metal PR#720 found them on the hub."""
    whole = remote.rename(remote.with_name("big-00001-of-00001.gguf"))
    for path in (whole, f"counted://{whole}"):
        found = fetch(path, tmp_path / "cache", SHA256)
        assert (found.path.name, found.sha256, found.parts) == (whole.name, SHA256, 1)
    assert model_name(whole) == model_name(Path("big-00001-of-00003.gguf")) == "big"
    assert model_name(Path("a/big-of.gguf")) == "big-of"


def test_a_split_model_is_not_repacked() -> None:
    with pytest.raises(ModelError, match="llama-gguf-split --merge"):
        repacked(LocalModel(Path("big-00001-of-00002.gguf"), "0" * 64, 1, 2), lambda *_: {}, {8})


def test_a_missing_file_names_its_neighbours(remote: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"modle\.gguf: no such file; beside it: model\.gguf"):
        fetch(remote.with_name("modle.gguf"), tmp_path / "cache")
    with pytest.raises(ModelError, match=r"a folder: name a file in it; GGUF files there: model\.gguf"):
        fetch(remote.parent, tmp_path / "cache")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("counted:///nowhere/model.gguf", "no such file"),
        ("memory://nowhere/model.gguf", "no such file"),
        ("s4://bucket/model.gguf", "is the protocol right"),
        ("hf://org/model.gguf", r"expected hf://org/repo/file\.gguf"),
        ("package://no_such_package/model.gguf", 'pip install "no-such-package"'),
        ("package:///model.gguf", "no package"),
        ("package://pytest/model.gguf", r"pytest/model\.gguf\): no such file"),
    ],
)
def test_a_wrong_address_says_what_to_do(tmp_path: Path, url: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        fetch(url, tmp_path)


def test_a_model_inside_a_package_needs_no_import_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "tiny_model_package"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "tiny.gguf").write_bytes(CONTENT)
    monkeypatch.syspath_prepend(tmp_path)
    model = fetch("package://tiny_model_package/tiny.gguf", tmp_path / "cache")
    assert model == LocalModel(package / "tiny.gguf", SHA256, len(CONTENT))


def test_the_hub_is_asked_for_repository_revision_and_file(
    remote: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str, str | None]] = []

    def download(repository: str, file: str, revision: str | None = None) -> str:
        asked.append((repository, file, revision))
        return str(remote)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    assert fetch("hf://org/repo/sub/m.gguf", tmp_path / "cache").sha256 == SHA256
    fetch("hf://org/repo@v2/m.gguf", tmp_path / "cache")
    assert asked == [("org/repo", "sub/m.gguf", None), ("org/repo", "m.gguf", "v2")]


def test_the_hubs_refusal_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise RuntimeError("401 gated repo")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", refuse)
    with pytest.raises(ModelError, match=r"401 gated repo.*HF_TOKEN"):
        fetch("hf://org/repo/m.gguf", tmp_path)


def test_secrets_in_a_url_are_not_shown() -> None:
    assert remote_model.shown("https://me:pass@host/m.gguf?X-Signature=abc") == "https://host/m.gguf"


def test_the_cache_can_be_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTHERD_CACHE", str(tmp_path))
    assert default_cache() == tmp_path
    monkeypatch.delenv("NIGHTHERD_CACHE")
    assert default_cache() == Path.home() / ".cache/nightherd/models"


def test_a_cache_that_is_no_folder_is_explained(remote: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="NIGHTHERD_CACHE names another"):
        fetch(remote, remote / "cache")
