"""The keys by which clients show who they are."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.serve.key_lines import KeyLine, key_lines

ENVIRONMENT = "NIGHTHERD_API_KEYS"
RELOAD_SECONDS = 1.0
"""The file is looked at so often at most."""

_log = logging.getLogger("nightherd.serve")


class Owners:
    """Who may ask. Of a key, only its SHA-256 is kept."""

    def __init__(self, digests: Mapping[bytes, str]) -> None:
        """digests: the owner's name by the SHA-256 of the key."""
        self._owners = dict(digests)

    @property
    def digests(self) -> Mapping[bytes, str]:
        """As they are now."""
        return self._owners

    @property
    def names(self) -> list[str]:
        """Of the owners, in order."""
        return list(dict.fromkeys(self._owners.values()))

    def owner(self, key: str) -> str | None:
        """Whose key it is; None for nobody's. It takes the same time whichever key is right."""
        digest = _digest(key)
        found = [owner for known, owner in self.digests.items() if hmac.compare_digest(known, digest)]
        return found[0] if found else None


class Keys(Owners):
    """Keys by the name of their owner.

    source: where they come from, for people. first: a shell command that prints the first one."""

    def __init__(self, lines: Sequence[KeyLine], source: str, shell: str, file: Path | None = None) -> None:
        """shell: a command that prints the lines. file: where the keys come from; a change of it counts."""
        super().__init__(_owners(lines))
        self.source = source
        self.first = f"{shell} | {lines[0].shell}"
        self._file = file
        self._stamp = _stamp(file) if file else None
        self._looked = time.monotonic()

    @classmethod
    def of_file(cls, file: Path) -> Keys:
        """As `key_lines`. Raises ConfigError where there are none."""
        lines = _read(file)
        if not lines:
            raise ConfigError(f"--api-key-file: {file} holds no keys: write one a line, as name:key or key")
        return cls(lines, str(file), f"cat {shlex.quote(str(file.absolute()))}", file)

    @classmethod
    def of_environment(cls, environment: Mapping[str, str] = os.environ) -> Keys | None:
        """Those of NIGHTHERD_API_KEYS, separated by commas; None where it is absent or empty. Raises
        ConfigError."""
        lines = key_lines(environment.get(ENVIRONMENT, "").replace(",", "\n"), ENVIRONMENT)
        return cls(lines, ENVIRONMENT, f"printenv {ENVIRONMENT} | tr , '\\n'") if lines else None

    @property
    def digests(self) -> Mapping[bytes, str]:
        self._reload()
        return self._owners

    def _reload(self) -> None:
        if self._file is None or time.monotonic() < self._looked + RELOAD_SECONDS:
            return
        self._looked = time.monotonic()
        stamp = _stamp(self._file)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._owners = _owners(_read(self._file))
        except ConfigError as error:
            _log.warning("%s; the keys of before stay valid", error)
        else:
            _log.info("read %d keys again", len(self._owners))


def _read(file: Path) -> list[KeyLine]:
    try:
        return key_lines(file.read_text(encoding="utf-8"), f"--api-key-file: {file}")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--api-key-file: {file} can't be read: {error}") from None


def _owners(lines: Sequence[KeyLine]) -> dict[bytes, str]:
    """A key without a name is named by its digest."""
    digests = [(_digest(line.key), line.name) for line in lines]
    return {digest: name or f"key-{digest.hex()[:8]}" for digest, name in digests}


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="surrogateescape")).digest()


def _stamp(file: Path) -> tuple[int, int, int] | None:
    """Another one after every change of the file."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
