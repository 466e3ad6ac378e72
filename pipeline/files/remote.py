"""Files that fsspec reaches: how they are listed and read, and what putting them in place has to keep."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, BinaryIO

from pipeline.files.entry import Entry


class RemoteFiles(ABC):
    """The file system `fs`, which isn't local folders. Paths are its own."""

    def __init__(self, fs: Any) -> None:
        self.fs = fs

    def find(self, path: str, depth: int | None = None) -> dict[str, Any]:
        """All files under a folder, `depth` folders deep; {} if it is absent.

        As fs.find, which takes a folder that can't be listed for an empty one.
        """
        found: dict[str, Any] = {}
        folders = [(path, 1)]
        while folders:
            folder, level = folders.pop()
            for info in self._within(folder):
                if info["type"] != "directory":
                    found[info["name"]] = info
                elif depth is None or level < depth:
                    folders.append((info["name"], level + 1))
        return found

    def is_file(self, path: str) -> bool:
        """As fs.isfile, which takes any failure for an absent file."""
        try:
            return bool(self.fs.info(path)["type"] == "file")
        except FileNotFoundError:
            return False

    def open(self, path: str) -> tuple[BinaryIO, Entry]:
        """The file, and which state of it that is."""
        file = self.fs.open(path, "rb")
        return file, Entry.of(getattr(file, "details", None) or self.fs.info(path))

    def forget(self, path: str) -> None:
        """Lets the file system look anew at a file, instead of what it remembers of the folder around."""
        self.fs.invalidate_cache(self.fs._parent(path))

    def remove_tree(self, path: str) -> None:
        self.fs.rm(path, recursive=True)

    @abstractmethod
    def put(self, aside: Path, path: str, overwrite: bool) -> bool:
        """Makes `path` hold the closed local file `aside`, in one step; False if it existed and may not
        change. FileNotFoundError means that somebody cleared away what was being put there."""

    def sweep(self, root: str) -> int:
        """Removes what dead writers left half-written below `root`; how many files that were."""
        return 0

    def check_size(self, aside: Path, path: str) -> None:
        """Raises OSError, and leaves nothing, where fewer bytes came to lie at `path` than were put there."""
        size, meant = self.fs.size(path), aside.stat().st_size
        if size != meant:
            self.fs.rm_file(path)
            raise OSError(f"{path} held {size} bytes of {meant} after it was put")

    def _within(self, folder: str) -> list[dict[str, Any]]:
        try:
            listed = self.fs.ls(folder, detail=True)
        except FileNotFoundError:
            return []
        return [info for info in listed if info["name"].rstrip("/") != folder.rstrip("/")]
