"""Files on servers that can rename but not create exclusively: sftp, hdfs, webdav ..."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from pipeline.files import aside as asides
from pipeline.files.remote import RemoteFiles


class FileServer(RemoteFiles):
    """A file is uploaded below the folder `asides`, and renamed when it lies there whole.

    Two writers at the same moment may both believe that they were first; the file is one of theirs.
    """

    def __init__(self, fs: Any, asides: str) -> None:
        super().__init__(fs)
        self._asides = asides

    def put(self, aside: Path, path: str, overwrite: bool) -> bool:
        if not overwrite and self.is_file(path):
            return False
        remote = f"{self._asides}/{aside.name}"
        try:
            self.fs.makedirs(self._asides, exist_ok=True)
            self.fs.put_file(str(aside), remote)
            self.check_size(aside, remote)
            return self._rename(remote, path, overwrite)
        except BaseException:
            with suppress(OSError):
                self.fs.rm_file(remote)
            raise

    def sweep(self, root: str) -> int:
        removed = 0
        for path, info in self.find(self._asides).items():
            if asides.abandoned(path.rpartition("/")[2], _changed(info)):
                self.fs.rm_file(path)
                removed += 1
        return removed

    def _rename(self, remote: str, path: str, overwrite: bool) -> bool:
        self.fs.makedirs(self.fs._parent(path), exist_ok=True)
        if not overwrite and self.is_file(path):
            self.fs.rm_file(remote)
            return False
        self.fs.mv(remote, path)
        return True


def _changed(info: dict[str, Any]) -> float | None:
    """When a file last changed, in Unix time; None where the server doesn't say so that it can be read."""
    when = info.get("mtime")
    if isinstance(when, datetime):
        return when.timestamp()
    return float(when) if isinstance(when, int | float) else None
