"""The keys by which clients show who they are."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from pipeline.errors import ConfigError

ENVIRONMENT = "NIGHTHERD_API_KEYS"
RELOAD_SECONDS = 1.0
"""The file is looked at so often at most."""

_log = logging.getLogger("nightherd.serve")


class Keys:
    """Keys by the name of their owner. Of a key, only its SHA-256 is kept."""

    def __init__(self, owners: Mapping[bytes, str], file: Path | None = None) -> None:
        """owners: by the digest of their key. file: where the keys come from; a change of it counts."""
        self._owners = dict(owners)
        self._file = file
        self._stamp = _stamp(file) if file else None
        self._looked = time.monotonic()

    @classmethod
    def of_file(cls, file: Path) -> Keys:
        """One a line, `name:key` or `key`; `#` begins a comment. Raises ConfigError where there are none."""
        owners = _read(file)
        if not owners:
            raise ConfigError(f"--api-key-file: {file} holds no keys: write one a line, as name:key or key")
        return cls(owners, file)

    @classmethod
    def of_environment(cls, environment: Mapping[str, str] = os.environ) -> Keys | None:
        """Those of NIGHTHERD_API_KEYS, separated by commas; None where it is absent or empty."""
        owners = _owners(environment.get(ENVIRONMENT, "").split(","))
        return cls(owners) if owners else None

    def owner(self, key: str) -> str | None:
        """Whose key it is; None for nobody's. It takes the same time whichever key is right."""
        self._reload()
        digest = _digest(key)
        found = [owner for known, owner in self._owners.items() if hmac.compare_digest(known, digest)]
        return found[0] if found else None

    def _reload(self) -> None:
        if self._file is None or time.monotonic() < self._looked + RELOAD_SECONDS:
            return
        self._looked = time.monotonic()
        stamp = _stamp(self._file)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._owners = _read(self._file)
        except ConfigError as error:
            _log.warning("%s; the keys of before stay valid", error)
        else:
            _log.info("read %d keys again", len(self._owners))


def _read(file: Path) -> dict[bytes, str]:
    try:
        return _owners(file.read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--api-key-file: {file} can't be read: {error}") from None


def _owners(lines: Iterable[str]) -> dict[bytes, str]:
    texts = (line.strip() for line in lines)
    return dict(_owner(text) for text in texts if text and not text.startswith("#"))


def _owner(text: str) -> tuple[bytes, str]:
    """A key without a name is named by its digest."""
    name, colon, key = text.rpartition(":")
    digest = _digest(key.strip())
    return digest, name.strip() if colon else f"key-{digest.hex()[:8]}"


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="surrogateescape")).digest()


def _stamp(file: Path) -> tuple[int, int, int] | None:
    """Another one after every change of the file."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
