"""The table of docs/templates.md: each chat is rendered whole, or refused with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest
import template_matrix

from tests.chat.test_template_nature import NEITHER, PARTS, TEXT
from tests.chat.test_tool_forms import TEMPLATES


def table(folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, list[str]], str]:
    status = template_matrix.main([str(folder)])
    printed = capsys.readouterr().out
    lines = [line.strip("| ").split(" | ") for line in printed.splitlines() if line.startswith("| ")]
    return status, {cells[0]: cells[1:] for cells in lines}, printed


def test_a_folder_of_templates_becomes_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, source in {"parts": PARTS, "coder": TEMPLATES["Qwen3-Coder"], "neither": NEITHER}.items():
        (tmp_path / f"{name}.jinja").write_text(source)
    status, rows, printed = table(tmp_path, capsys)
    assert status == 0
    assert rows["coder"][:9] == ["yes"] * 9
    assert rows["parts"][:4] == ["yes"] * 4
    assert all(cell.startswith("no [") for cell in (*rows["parts"][4:9], *rows["neither"][:9]))
    assert "does not show messages[0].content" in printed
    assert "0 lost." in printed


def test_a_text_that_is_lost_is_named_and_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text.jinja").write_text(TEXT)
    said = template_matrix.Case(template_matrix.user(), ("never said",))
    monkeypatch.setattr(template_matrix, "cases", lambda: iter([said]))
    status, _, printed = table(tmp_path, capsys)
    assert status == 1
    assert "LOST never said" in printed
