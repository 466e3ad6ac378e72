"""Files that are compressed as a whole, read as what is in them."""

from __future__ import annotations

import io

import pyarrow as pa

_BLOCK = 1 << 20
# By their first bytes: a name may lie, and some downloads are unpacked on the way.
_CODECS = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\x28\xb5\x2f\xfd": "zstd", b"\x04\x22\x4d\x18": "lz4"}


def unpacked(file: pa.NativeFile) -> pa.NativeFile:
    """The file itself, or what gzip, bzip2, zstd or lz4 have packed in it; it closes `file`."""
    head = file.read(4)
    file.seek(0)
    codec = next((codec for magic, codec in _CODECS.items() if head.startswith(magic)), None)
    return Unpacked(file, codec) if codec else file


class Unpacked:
    """Reads on; going back begins anew. Raises OSError where the file is cut off or broken."""

    def __init__(self, file: pa.NativeFile, codec: str) -> None:
        self._file = file
        self._codec = codec
        self._begin()

    def __enter__(self) -> Unpacked:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    def read(self, size: int) -> bytes:
        """At most `size` bytes; none at the end."""
        data = bytes(self._stream.read(size))
        self._at += len(data)
        return data

    def seek(self, offset: int) -> None:
        if offset < self._at:
            self._begin()
        while self._at < offset and self.read(min(_BLOCK, offset - self._at)):
            pass

    def _begin(self) -> None:
        self._file.seek(0)
        self._stream = pa.CompressedInputStream(pa.PythonFile(_Lent(self._file), mode="r"), self._codec)
        self._at = 0


class _Lent(io.RawIOBase):
    """A file that Arrow's streams don't close when they end."""

    def __init__(self, file: pa.NativeFile) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return bytes(self._file.read(size))
