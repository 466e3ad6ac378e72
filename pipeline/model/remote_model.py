"""A remote file becomes a local one: whole or absent, and not twice."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import fsspec
from fsspec.core import url_to_fs

from pipeline.errors import ModelError

Result = TypeVar("Result")
_PAUSES = (0.0, 1.0, 4.0)  # seconds before each try
_BACKENDS = {"s3": "nightherd[s3]", "gs": "nightherd[gcs]", "http": "aiohttp", "https": "aiohttp"}
_STAMPS = re.compile(r"etag|md5|digest|crc32c|generation|modified|mtime|updated|created", re.IGNORECASE)


def fetch(url: str, target: Path, check: Callable[[Path], None]) -> None:
    """`target` holds what `url` holds; downloaded unless size and stamps (etag ...) are those of last time.

    check: raises ModelError for a download that must not be kept. The caller holds a lock on `target`.
    """
    filesystem, path = _open(url)
    note = target.with_name(f"{target.name}.json")
    state = _state(filesystem, path, url)
    if _is_current(target, note, state):
        return
    part = target.with_name(f"{target.name}.part")
    note.unlink(missing_ok=True)
    try:
        _attempt(url, lambda: filesystem.get_file(path, str(part)))
        _check_size(part, state["size"], url)
        check(part)
        publish(part, target)
    finally:
        part.unlink(missing_ok=True)
    note.write_text(json.dumps(state))


def shown(url: str) -> str:
    """`url` as people may see it: without a password or a signature."""
    bare = url.partition("?")[0] if url.startswith(("http://", "https://")) else url
    return re.sub(r"://[^/@]*@", "://", bare)


def _open(url: str) -> tuple[Any, str]:
    try:
        filesystem, path = url_to_fs(url)
    except (ImportError, ValueError) as error:
        protocol = url.partition("://")[0].rpartition("::")[2]
        known = protocol in fsspec.available_protocols()
        wanted = _BACKENDS.get(protocol)
        advice = f': pip install "{wanted}"' if wanted else "" if known else "; is the protocol right?"
        raise ModelError(f"model {shown(url)} can't be opened: {_reason(error, url)}{advice}") from error
    return filesystem, path


def _state(filesystem: Any, path: str, url: str) -> dict[str, Any]:
    filesystem.invalidate_cache()
    info = _attempt(url, lambda: filesystem.info(path))
    if info.get("type") == "directory":
        raise ModelError(f"model {shown(url)} is a folder: name a GGUF file in it")
    stamps = {key: str(value) for key, value in sorted(info.items()) if value and _STAMPS.search(key)}
    return {"size": info.get("size"), "stamps": stamps}


def _is_current(target: Path, note: Path, state: dict[str, Any]) -> bool:
    if not (target.exists() and note.exists()) or state == {"size": None, "stamps": {}}:
        return False
    try:
        known = json.loads(note.read_text())
    except ValueError:
        return False
    return bool(known == state and target.stat().st_size == (state["size"] or target.stat().st_size))


def _attempt(url: str, action: Callable[[], Result]) -> Result:
    for pause in _PAUSES:
        time.sleep(pause)
        try:
            return action()
        except FileNotFoundError as error:
            raise ModelError(f"model {shown(url)}: no such file") from error
        except PermissionError as error:
            raise ModelError(
                f"model {shown(url)}: access denied ({_reason(error, url)}): check the credentials"
            ) from error
        except Exception as error:
            # fsspec's backends raise what their clients raise: OSError is not enough.
            last = error
    raise ModelError(
        f"model {shown(url)}: failed {len(_PAUSES)} times: {_reason(last, url)}. Check the network and the "
        "space left in the cache folder (NIGHTHERD_CACHE names another)"
    ) from last


def _reason(error: Exception, url: str) -> str:
    return f"{type(error).__name__}: {error}".replace(url, shown(url))


def _check_size(part: Path, size: int | None, url: str) -> None:
    got = part.stat().st_size
    if size is not None and got != size:
        raise ModelError(f"model {shown(url)}: {got} bytes arrived of {size}: start the job again")


def publish(part: Path, target: Path) -> None:
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
