"""Files of the Hugging Face Hub, read as they were at one commit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.errors import InputError, StorageError
from pipeline.files.remote import RemoteFiles
from pipeline.files.retries import retried


class HubFiles(RemoteFiles):
    """A repository's files. They can't be written."""

    def find(self, path: str, depth: int | None = None) -> dict[str, Any]:
        """As RemoteFiles, by few requests for many folders."""
        try:
            found: dict[str, Any] = self.fs.find(path, maxdepth=depth, detail=True)
        except FileNotFoundError:
            return {}
        return found

    def forget(self, path: str) -> None:
        """Nothing: a commit doesn't change, and the Hub limits how often one may ask."""

    def put(self, aside: Path, path: str, overwrite: bool) -> bool:
        raise StorageError(f"hf://{path}: the Hub is read, not written: choose another place, and upload it")


def at_commit(url: str, fs: Any, path: str) -> str:
    """The URL with the commit in it that its repository or revision is at now. path: as `fs` has it.

    Raises InputError where there is no such repository or revision, or where it isn't for this user.
    """
    # Slow to import, and needed by few.
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    def ask() -> tuple[Any, Any]:
        place = fs.resolve_path(path)
        api = HfApi(endpoint=fs.endpoint, token=fs.token)
        return place, api.repo_info(place.repo_id, repo_type=place.repo_type, revision=place.revision)

    try:
        place, about = retried(f"{url}: can't ask the Hub", ask)
    except (FileNotFoundError, RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise InputError(
            f"input {url}: the Hub has no such repository or revision, or it is not yours to read (set "
            f"HF_TOKEN, or run hf auth login): {str(error).strip()}"
        ) from None
    except (ValueError, NotImplementedError, AttributeError) as error:
        raise InputError(f"input {url}: expected hf://datasets/org/name[@revision]/path: {error}") from None
    kind = "" if place.repo_type == "model" else f"{place.repo_type}s/"
    below = f"/{place.path_in_repo}" if place.path_in_repo else ""
    return f"hf://{kind}{place.repo_id}@{about.sha}{below}"
