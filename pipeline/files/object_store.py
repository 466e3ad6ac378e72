"""Objects of S3, GCS and their like: they appear when their last byte has come."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fsspec.asyn import AsyncFileSystem

from pipeline.files.aside import ABANDONED_AFTER
from pipeline.files.remote import RemoteFiles


class ObjectStore(RemoteFiles):
    """S3 and GCS refuse to create an object twice, in one part or in many; others may not know how to."""

    def find(self, path: str, depth: int | None = None) -> dict[str, Any]:
        if depth or not self._lists_at_once:
            return super().find(path, depth)
        try:
            found = self.fs.find(path, detail=True)
        except FileNotFoundError:
            return {}
        # Consoles make folders visible by empty objects.
        return {name: info for name, info in found.items() if not name.endswith("/")}

    def put(self, aside: Path, path: str, overwrite: bool) -> bool:
        # Spares an upload, and is all there is where a store ignores the mode "create".
        if not overwrite and self.is_file(path):
            return False
        try:
            self.fs.put_file(str(aside), path, mode="overwrite" if overwrite else "create")
        except OSError as error:
            # Stores word "it exists" in several ways; what counts is whether an object is there.
            if not overwrite and (isinstance(error, FileExistsError) or self._appeared(path)):
                return False
            raise
        if not overwrite:
            self.check_size(aside, path)
        return True

    def sweep(self, root: str) -> int:
        """Ends the uploads in parts that nobody goes on with. GCS and Azure do so by themselves."""
        if not hasattr(self.fs, "call_s3"):
            return 0
        bucket, key, _ = self.fs.split_path(root)
        old = [upload for upload in self._uploads(bucket, f"{key}/" if key else "") if _is_old(upload)]
        for upload in old:
            self.fs.call_s3(
                "abort_multipart_upload", Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"]
            )
        return len(old)

    @property
    def _lists_at_once(self) -> bool:
        """Whether fs.find asks for all names that begin so, instead of walking from folder to folder."""
        return getattr(type(self.fs), "_find", None) is not AsyncFileSystem._find

    def _appeared(self, path: str) -> bool:
        self.fs.invalidate_cache(self.fs._parent(path))
        return self.is_file(path)

    def _uploads(self, bucket: str, prefix: str) -> Iterator[dict[str, Any]]:
        place: dict[str, str] = {}
        while True:
            page = self.fs.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=prefix, **place)
            yield from page.get("Uploads", [])
            if not page.get("IsTruncated"):
                return
            place = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}


def _is_old(upload: dict[str, Any]) -> bool:
    age: float = (datetime.now(UTC) - upload["Initiated"]).total_seconds()
    return age > ABANDONED_AFTER
