"""The copy for CPU slots: made once per node, whole or absent, and only where it is worth its room."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pipeline.config import make_job
from pipeline.errors import ModelError
from pipeline.model import repack
from pipeline.model.gguf import Tensor
from pipeline.model.models import LocalModel
from pipeline.model.repack import Repacked, plan_of, repacked
from pipeline.output.fingerprint import Fingerprint

Q4_0, Q4_1, Q4_K, Q6_K, Q8_0, F32 = 2, 3, 12, 14, 8, 0
FAST = {Q4_0, Q4_K, Q8_0}
CONTENT = b"GGUF" + bytes(range(256)) * 64
CHANGES = {"tokens": 7, "agreement": 0.5}


class FakeRequantiser:
    """Writes the source twice, in halves, and notes each call in a file beside the source."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    def __call__(self, source: Path, target: Path, kept: dict[str, int]) -> dict[str, Any] | None:
        with source.with_suffix(".log").open("a") as log:
            log.write(f"{sorted(kept)}\n")
        assert not target.exists()
        with target.open("wb") as file:
            for _ in range(2):
                file.write(source.read_bytes())
                file.flush()
                if self.error:
                    raise self.error
        return CHANGES


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalModel:
    monkeypatch.setattr(repack, "read_tensors", fake_tensors)
    path = tmp_path / "model.gguf"
    path.write_bytes(CONTENT)
    return LocalModel(path, "ab" * 32, len(CONTENT))


def fake_tensors(_: Path) -> list[Tensor]:
    return [weight("blk.0.attn_q.weight", Q4_1), weight("token_embd.weight", Q8_0)]


def weight(name: str, kind: int, rows: int = 64) -> Tensor:
    bits = {Q4_0: 18, Q4_1: 20, Q4_K: 18, Q6_K: 26, Q8_0: 34, F32: 128}[kind]
    return Tensor(name, (256, rows), kind, 256 * rows // 32 * bits)


def calls(model: LocalModel) -> int:
    log = model.path.with_suffix(".log")
    return len(log.read_text().splitlines()) if log.exists() else 0


def files(cache: Path) -> list[str]:
    return sorted(f.suffix for f in (cache / "repacked").iterdir() if f.suffix != ".lock")


def repacked_in_child(model: LocalModel, cache: Path) -> tuple[Repacked, bytes]:
    repack.read_tensors = fake_tensors
    found = repacked(model, FakeRequantiser(), FAST, cache)
    return found, found.path.read_bytes()


def test_a_copy_is_made_once_with_a_note_of_what_it_changes(model: LocalModel, tmp_path: Path) -> None:
    first = repacked(model, FakeRequantiser(), FAST, tmp_path / "cache")
    assert (first.path.read_bytes(), first.changes) == (CONTENT * 2, CHANGES)
    assert "is repacked as Q8_0 in" in first.note
    again = repacked(model, FakeRequantiser(), FAST, tmp_path / "cache")
    assert (again, again.note) == (first, "")
    assert first.record == {"copied": True, **CHANGES}
    assert calls(model) == 1
    assert files(tmp_path / "cache") == [".gguf", ".json"]


def test_a_copy_belongs_to_one_model_and_one_llama_cpp(
    model: LocalModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = {repacked(model, FakeRequantiser(), FAST, tmp_path).path}
    paths.add(repacked(LocalModel(model.path, "cd" * 32, 1), FakeRequantiser(), FAST, tmp_path).path)
    monkeypatch.setattr(repack, "version", lambda _: "9.9.9")
    paths.add(repacked(model, FakeRequantiser(), FAST, tmp_path).path)
    assert (len(paths), calls(model)) == (3, 3)


@pytest.mark.parametrize("damage", ["cut", "gone", "no record", "half a record", "another record"])
def test_a_damaged_copy_is_made_again(model: LocalModel, tmp_path: Path, damage: str) -> None:
    path = repacked(model, FakeRequantiser(), FAST, tmp_path).path
    record = path.with_suffix(".json")
    match damage:
        case "cut":
            path.write_bytes(CONTENT)
        case "gone":
            path.unlink()
        case "no record":
            record.unlink()
        case "half a record":
            record.write_text(record.read_text()[:20])
        case "another record":
            record.write_text("[]")
    again = repacked(model, FakeRequantiser(), FAST, tmp_path)
    assert (again, path.read_bytes()) == (Repacked(path, True, CHANGES), CONTENT * 2)
    assert calls(model) == 2


def test_what_a_killed_process_left_is_no_copy(model: LocalModel, tmp_path: Path) -> None:
    path = repacked(model, FakeRequantiser(), FAST, tmp_path).path
    path.rename(path.with_suffix(".part"))
    assert repacked(model, FakeRequantiser(), FAST, tmp_path).path.read_bytes() == CONTENT * 2
    assert files(tmp_path) == [".gguf", ".json"]


@pytest.mark.parametrize("error", [ModelError("llama.cpp can't"), OSError(28, "No space left on device")])
def test_a_failure_is_explained_and_leaves_nothing(
    model: LocalModel, tmp_path: Path, error: Exception
) -> None:
    with pytest.raises(ModelError, match=r"llama\.cpp can't|No space left on device.*NIGHTHERD_CACHE"):
        repacked(model, FakeRequantiser(error), FAST, tmp_path)
    assert files(tmp_path) == []


def test_too_little_room_is_said_before_anything_is_written(
    model: LocalModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1 << 30, 1 << 30, 1 << 10))
    with pytest.raises(ModelError, match=r"model\.cpu_repack: .* takes 0 MiB, but .* has 0 MiB left"):
        repacked(model, FakeRequantiser(), FAST, tmp_path)
    assert (calls(model), files(tmp_path)) == (0, [])


def test_racing_processes_make_one_whole_copy(model: LocalModel, tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        found = pool.starmap(repacked_in_child, [(model, tmp_path / "cache")] * 8, chunksize=1)
    assert {(each.path, content) for each, content in found} == {(found[0][0].path, CONTENT * 2)}
    assert (calls(model), files(tmp_path / "cache")) == (1, [".gguf", ".json"])


def test_a_fast_model_is_used_as_it_is_and_said_so(
    model: LocalModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repack, "read_tensors", lambda _: [weight("blk.0.ffn_up.weight", Q4_0)])
    used = repacked(model, FakeRequantiser(), FAST, tmp_path)
    assert (used, used.record) == (Repacked(model.path), {"copied": False})
    assert calls(model) == 0
    assert "is left as it is: 100% of its weights are fast on the CPU" in used.note


class Case(NamedTuple):
    tensors: list[Tensor]
    kept: set[str]
    is_slow: bool


@pytest.mark.parametrize(
    "case",
    [
        Case([weight("a.weight", Q4_1), weight("b.weight", Q6_K)], set(), True),
        Case([weight("a.weight", Q4_K), weight("b.weight", Q6_K)], {"a.weight"}, True),
        Case([weight(f"{kind}.weight", kind) for kind in (Q4_0, Q4_K, Q8_0)], {"2.weight"}, False),
        # Vectors are added or multiplied, never matrices: their type says nothing.
        Case([weight("a.weight", Q8_0), Tensor("norm.weight", (256,), F32, 1 << 20)], {"a.weight"}, False),
        # A gate in F32 beside fast weights is not worth a copy.
        Case([weight("a.weight", Q8_0, 4096), weight("gate.weight", F32, 8)], {"a.weight"}, False),
        # Tied embeddings are the output's weights too; others are only looked up.
        Case([weight("a.weight", Q8_0), weight("token_embd.weight", Q6_K)], {"a.weight"}, True),
        Case(
            [weight("output.weight", Q8_0), weight("token_embd.weight", Q6_K)], {"token_embd.weight"}, False
        ),
    ],
)
def test_only_what_is_slow_is_changed(case: Case) -> None:
    plan = plan_of(case.tensors, FAST)
    types = {tensor.name: tensor.type for tensor in case.tensors}
    assert case.kept <= plan.kept.keys()
    assert all(types[name] == kind for name, kind in plan.kept.items())
    assert all(types[name] not in FAST for name in types.keys() - plan.kept.keys() if "norm" not in name)
    assert (plan.slow >= repack.WORTHWHILE) == case.is_slow


def test_the_room_that_a_copy_takes_is_known_beforehand() -> None:
    plan = plan_of([weight("a.weight", Q4_1), weight("b.weight", Q4_0)], FAST)
    assert plan.size == weight("a.weight", Q8_0).size + weight("b.weight", Q4_0).size


def test_experts_stay_as_they_are() -> None:
    experts = Tensor("blk.0.ffn_up_exps.weight", (256, 64, 8), Q4_1, 1 << 20)
    plan = plan_of([experts, weight("a.weight", Q4_1)], FAST)
    assert plan.kept == {experts.name: Q4_1}
    assert plan.slow < repack.WORTHWHILE


def test_nodes_that_change_other_types_have_other_copies(model: LocalModel, tmp_path: Path) -> None:
    one = repacked(model, FakeRequantiser(), {Q8_0}, tmp_path).path
    assert one == repacked(model, FakeRequantiser(), {Q8_0, Q4_K}, tmp_path).path
    assert "-Q4_1-" in one.name
    assert not repacked(model, FakeRequantiser(), {Q8_0, Q4_1}, tmp_path).copied


def test_a_record_names_its_source(model: LocalModel, tmp_path: Path) -> None:
    record = json.loads(
        repacked(model, FakeRequantiser(), FAST, tmp_path).path.with_suffix(".json").read_text()
    )
    assert record == {"source": str(model.path), "size": 2 * len(CONTENT), "changes": CHANGES}


def test_the_setting_is_part_of_the_fingerprint_and_named_where_it_differs() -> None:
    tree: dict[str, Any] = {"model": {"path": "m"}, "input": {"path": "in"}, "output": {"path": "out"}}
    plain = Fingerprint.of(make_job(tree, [], "test"), "ab" * 32, [])
    other = Fingerprint.of(make_job(tree, [("model.cpu_repack", True)], "test"), "ab" * 32, [])
    assert plain.digest != other.digest
    assert other.differences(plain) == ["model.cpu_repack: true, but was false"]
