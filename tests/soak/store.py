"""A simulated object store: objects appear whole, can be created only once, and every request is a step."""

from __future__ import annotations

import errno
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import fsspec
from fsspec.spec import AbstractFileSystem

from tests.soak.gate import Gate

T = TypeVar("T")


class Store(AbstractFileSystem):
    """soak://bucket/..., as s3fs shows S3: consistent, without folders or renames.

    objects: the content and the number of each. gate: who may be struck by faults, nobody while None.
    """

    protocol = "soak"
    root_marker = ""
    cachable = False
    # By this the pipeline knows object stores.
    async_impl = True
    objects: ClassVar[dict[str, tuple[bytes, int]]] = {}
    gate: ClassVar[Gate | None] = None
    root: ClassVar[str] = ""
    _numbers: ClassVar[int] = 0

    @classmethod
    def reset(cls, root: str, gate: Gate | None) -> None:
        """root: the output, to which the names of operations are relative."""
        cls.objects, cls.gate, cls.root, cls._numbers = {}, gate, f"{root}/", 0

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        return self._request("look", path, lambda: self._details(path))

    def exists(self, path: str, **_: Any) -> bool:
        # As s3fs, not as fsspec: a failure is no answer.
        try:
            self.info(path)
        except FileNotFoundError:
            return False
        return True

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        raise NotImplementedError("nothing lists by folders")

    def find(
        self, path: str, maxdepth: int | None = None, withdirs: bool = False, detail: bool = False, **_: Any
    ) -> Any:
        prefix = f"{path.rstrip('/')}/"
        return self._request(
            "list", path, lambda: {p: self._details(p) for p in sorted(self.objects) if p.startswith(prefix)}
        )

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        return self._request("read", path, lambda: self._object(path)[0][start:end])

    def open(self, path: str, mode: str = "rb", **_: Any) -> Any:
        assert mode == "rb"
        path = self._strip_protocol(path)
        return _Object(self, self.info(path))

    def put_file(self, lpath: str, rpath: str, mode: str = "overwrite", **_: Any) -> None:
        data = Path(lpath).read_bytes()

        def put() -> None:
            if mode == "create" and rpath in self.objects:
                raise FileExistsError(rpath)
            type(self)._numbers += 1
            self.objects[rpath] = data, self._numbers

        self._request("put", rpath, put)

    def rm_file(self, path: str) -> None:
        # S3 says of an object that isn't there that it's gone.
        self._request("delete", path, lambda: self.objects.pop(path, None))

    def rm(self, path: str, recursive: bool = False, maxdepth: int | None = None) -> None:
        found = list(self.find(path, detail=True))
        if not found:
            raise FileNotFoundError(path)
        for name in found:
            self.rm_file(name)

    def read_range(self, path: str, number: int, start: int, stop: int) -> bytes:
        """Of the object as it was opened, as a request with If-Match."""

        def read() -> bytes:
            data, now = self._object(path)
            if now != number:
                raise OSError(errno.EBUSY, f"{path}: the object has changed")
            return data[start:stop]

        return self._request("read on", path, read)

    def _details(self, path: str) -> dict[str, Any]:
        data, number = self._object(path)
        return {"name": path, "size": len(data), "type": "file", "ETag": str(number)}

    def _object(self, path: str) -> tuple[bytes, int]:
        try:
            return self.objects[path]
        except KeyError:
            raise FileNotFoundError(path) from None

    def _request(self, operation: str, path: str, action: Callable[[], T]) -> T:
        return self.gate.perform(operation, path.removeprefix(self.root), action) if self.gate else action()


class _Object(io.RawIOBase):
    """An open object: each read is a request. details: as s3fs keeps them."""

    def __init__(self, store: Store, details: dict[str, Any]) -> None:
        self._store, self.details, self._at = store, details, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + (0, self._at, self.details["size"])[whence]
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        stop = self.details["size"] if size is None or size < 0 else self._at + size
        data = self._store.read_range(self.details["name"], int(self.details["ETag"]), self._at, stop)
        self._at += len(data)
        return data


fsspec.register_implementation("soak", Store, clobber=True)
