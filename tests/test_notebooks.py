"""The notebooks run from a clean state, on outputs as the jobs write them."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import nbformat
import pyarrow as pa
import pytest
from nbclient import NotebookClient

from pipeline.errors import RowError
from tests.answered import Answered

FOLDER = Path(__file__).parent.parent / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))


def demo(url: str) -> None:
    chats = [({"text": f"answer {n} " * (n + 1), "seconds": n / 7}, {}) for n in range(12)]
    chats.append((RowError("unsupported_parameter", "n must be an integer", "n"), {}))
    Answered(url, {"chats.parquet": chats, "labels.parquet": [("good", {}), ("bad", {})] * 6}).finish()


def labels(url: str) -> None:
    kept = pa.schema({"product": pa.string(), "review": pa.string()})

    def row(number: int) -> tuple[Any, dict[str, str]]:
        share = 0.5 + number / 50
        shares = {"good": math.log(share), "bad": math.log(1 - share)}
        return {"text": "good", "labels": shares}, {"product": f"p{number % 3}", "review": f"review {number}"}

    request = {"defaults": {"guided_choice": ["good", "bad"], "label_logprobs": True}}
    Answered(url, {"reviews.parquet": [row(n) for n in range(24)]}, kept, request=request).finish()


def bench(file: Path) -> None:
    def figures(speed: float, outside: float | None) -> dict[str, Any]:
        ratios = {"llama-server": speed / 10, "floor": speed / 20}
        spread = {"median": speed, "min": speed * 0.9, "max": speed * 1.2}
        return {"unit": "rows/s", **spread, "ratios": ratios, "outside": outside, "agreement": None}

    found = {"nightherd": figures(18.0, 0.04), "llama-server": figures(10.0, None)}
    line = {"machine": {"cpus": 2, "slots": 16}, "figures": {"enum": found, "labeling": found}}
    file.write_text(f"a table\n{json.dumps(line)}\n")


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs_from_a_clean_state(name, tmp_path):
    (tmp_path / "notebooks").mkdir()
    demo(str(tmp_path / "out/demo"))
    labels(str(tmp_path / "out/label"))
    bench(tmp_path / "bench.txt")
    notebook = nbformat.read(shutil.copy(FOLDER / f"{name}.ipynb", tmp_path / "notebooks"), as_version=4)
    nbformat.validate(notebook)
    resources = {"metadata": {"path": str(tmp_path / "notebooks")}}
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources=resources).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert any("image/png" in output.get("data", {}) for output in shown)
    assert not [output for output in shown if output.get("name") == "stderr"]


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_kept_without_its_results(name):
    for cell in nbformat.read(FOLDER / f"{name}.ipynb", as_version=4).cells:
        assert cell.cell_type == "markdown" or (cell.outputs, cell.execution_count) == ([], None)
