"""Processes that want the same model at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pipeline.model.remote_model  # noqa: F401  (imported once, for all processes that are forked from one)
from pipeline.config import ModelConfig
from pipeline.errors import ModelError
from pipeline.model.models import fetch_model


def want(url: str, sha256: str | None, cache: Path, results: Any) -> None:
    """Puts the hash of the model, or what was wrong with it."""
    try:
        model = fetch_model(ModelConfig(path=url, sha256=sha256), cache)
    except ModelError as error:
        results.put(f"ModelError: {error}")
    else:
        results.put(model.sha256 if model.path.stat().st_size == model.size else "cut short")
