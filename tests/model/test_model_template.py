"""A chat template of the job's own: read from anywhere, checked, and part of what results depend on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.config import JobConfig, ModelConfig
from pipeline.errors import ModelError
from pipeline.model.model_template import read_chat_template
from pipeline.output.fingerprint import Fingerprint


def template_at(url: str | Path | None) -> str | None:
    return read_chat_template(ModelConfig(path="m.gguf", chat_template=url and str(url)))


def fingerprint(url: Path | None) -> Fingerprint:
    model = {"path": "m.gguf", "chat_template": url and str(url)}
    tree = {"model": model, "input": {"path": "in"}, "output": {"path": "out"}}
    return Fingerprint.of(JobConfig.model_validate(tree), "0" * 64, [])


def test_the_templates_text(tmp_path: Path) -> None:
    path = tmp_path / "chat.jinja"
    path.write_text("{{ messages[0].content }}é", encoding="utf-8")
    assert template_at(path) == template_at(f"file://{path}") == "{{ messages[0].content }}é"
    assert template_at(None) is None


@pytest.mark.parametrize("content", [b"{% for", b"\xff", None])
def test_what_is_no_template_names_the_setting(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "chat.jinja"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=f"model.chat_template {path}"):
        template_at(path)


def test_an_address_that_nobody_knows_names_the_setting() -> None:
    with pytest.raises(ModelError, match=r"model.chat_template nowhere://"):
        template_at("nowhere://chat.jinja")


def test_results_depend_on_the_text_and_not_on_its_place(tmp_path: Path) -> None:
    first, copy, other = (tmp_path / name for name in "abc")
    first.write_text("{{ 1 }}")
    copy.write_text("{{ 1 }}")
    other.write_text("{{ 2 }}")
    assert fingerprint(first).digest == fingerprint(copy).digest
    assert len({fingerprint(path).digest for path in (None, first, other)}) == 3
    assert fingerprint(other).differences(fingerprint(first))[0].startswith("model.chat_template: ")


def test_results_depend_on_the_jobs_template_variables() -> None:
    tree: dict[str, Any] = {"model": {"path": "m"}, "input": {"path": "in"}, "output": {"path": "out"}}
    digests = {
        Fingerprint.of(
            JobConfig.model_validate(
                tree | {"request": {"defaults": {"chat_template_kwargs": {"enable_thinking": value}}}}
            ),
            "0" * 64,
            [],
        ).digest
        for value in (True, False)
    }
    assert len(digests) == 2
