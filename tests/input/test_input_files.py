"""Input files by their names: what can be read is read, the rest is named, and folders' names are columns.

After reports that files are passed over in silence, ray#17325 and polars#12903 (Hive's folders).
"""

from __future__ import annotations

import bz2
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.answer.answers import Answers
from pipeline.answer.shared_schema import shared_schema
from pipeline.config import JobConfig
from pipeline.engine.sequence import Generation
from pipeline.errors import InputError, RowError
from pipeline.files.storage import Storage
from pipeline.input.shard_reader import ShardReader
from pipeline.input.shards import Chunk, chunks, list_input, list_shards, plan_shard
from pipeline.job.worker import Identity, Worker, check_input
from pipeline.output.fingerprint import Fingerprint
from pipeline.output.manifest import Manifest
from pipeline.pulse import Pulse
from pipeline.report.summary import Summary
from pipeline.request.rows import Row
from pipeline.tally import Tally

LINES = [json.dumps({"custom_id": f"r{n}", "prompt": f"Ä{n}"}, ensure_ascii=False) for n in range(1000)]
TEXT = "\n".join(LINES).encode()


def packed(codec: str, data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, codec) as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "gzip": gzip.compress,
    "bz2": bz2.compress,
    "zst": lambda data: packed("zstd", data),
    "lz4": lambda data: packed("lz4", data),
    # As logs are joined.
    "GZ": lambda data: gzip.compress(data[:100]) + gzip.compress(data[100:]),
}


def parquet(path: Path, **columns: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns or {"prompt": ["Hi"]}), path)
    return path


@pytest.mark.parametrize("name", "x.parquet x.PARQUET x.pq x.parq x.parquet.gzip x.Parquet.snappy".split())
def test_parquet_is_read_by_any_of_its_names(tmp_path: Path, name: str) -> None:
    parquet(tmp_path / name)
    (shard,) = list_shards(str(tmp_path))
    assert (plan_shard(shard).rows, shard.output) == (1, "x.parquet")
    assert [shard.name for shard in list_shards(str(tmp_path / name))] == [name]


@pytest.mark.parametrize("suffix", ["jsonl", "ndjson", "jsonlines", "JSONL"])
@pytest.mark.parametrize("packing", ["", *PACKED])
def test_json_lines_are_read_by_any_of_their_names_and_packed(
    tmp_path: Path, suffix: str, packing: str
) -> None:
    path = tmp_path / f"x.y.{suffix}{packing and '.'}{packing}"
    path.write_bytes(PACKED[packing](TEXT) if packing else TEXT)
    (shard,) = list_shards(str(tmp_path))
    plan = plan_shard(shard)
    assert (plan.rows, shard.output) == (1000, "x.y.parquet")
    with ShardReader(plan) as reader:
        for chunk in reversed(list(chunks(plan))):
            assert reader.read(chunk).column("line").to_pylist() == LINES[chunk.start : chunk.stop]


def test_packing_is_told_by_its_content_and_has_the_same_digest(tmp_path: Path) -> None:
    for name, data in {"a.jsonl": gzip.compress(TEXT), "b.jsonl.gz": TEXT, "c.jsonl": TEXT}.items():
        (tmp_path / name).write_bytes(data)
    plans = [plan_shard(shard) for shard in list_shards(str(tmp_path))]
    assert [plan.rows for plan in plans] == [1000] * 3
    assert len({plan.digest for plan in plans}) == 1


def test_a_packed_file_that_is_cut_off_or_broken_is_named(tmp_path: Path) -> None:
    whole = gzip.compress(TEXT)
    for bad in (whole[:-9], whole[:500], whole[:500] + b"xxxx" + whole[504:]):
        (tmp_path / "x.jsonl.gz").write_bytes(bad)
        with pytest.raises(InputError, match=r"x\.jsonl\.gz: not a readable file of JSON lines"):
            plan_shard(list_shards(str(tmp_path))[0])


def test_parquet_that_is_packed_as_a_whole_says_so(tmp_path: Path) -> None:
    path = parquet(tmp_path / "x.parquet.gz")
    assert plan_shard(list_shards(str(path))[0]).rows == 1
    path.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(InputError, match=r"x\.parquet\.gz: .*compressed as a whole: gunzip it"):
        plan_shard(list_shards(str(path))[0])


def test_what_is_not_read_is_named_and_counted(tmp_path: Path) -> None:
    for name in ("a.parquet", "b.PARQUET", "_temporary/0/c.parquet", ".d.parquet"):
        parquet(tmp_path / name)
    for name in ("e.txt", "f/g.json", "README.md", "_SUCCESS", ".a.parquet.crc", "_delta_log/0.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    listing = list_input(str(tmp_path))
    assert [shard.name for shard in listing.shards] == ["a.parquet", "b.PARQUET"]
    assert listing.unread == [".d.parquet", "README.md", "_temporary/0/c.parquet", "e.txt", "f/g.json"]
    assert listing.note.startswith("5 files are not read") and "e.txt" in listing.note
    assert listing.note in str(Summary("job", "out", shards=2, totals=Tally(), unread=listing.note))
    with pytest.raises(InputError, match=r"no \.parquet.* file there; 1 file is not read .*e\.txt"):
        list_input(f"{tmp_path}/*.txt")
    (tmp_path / "e.txt").unlink()
    assert list_input(str(tmp_path / "a.parquet")).note == ""


@pytest.mark.parametrize("target", ["gone.parquet", "x.parquet"])
def test_a_link_to_nothing_is_refused(tmp_path: Path, target: str) -> None:
    parquet(tmp_path / "a.parquet")
    (tmp_path / "x.parquet").symlink_to(tmp_path / target)
    for url in (tmp_path, tmp_path / "x.parquet", f"{tmp_path}/*.parquet", f"{tmp_path}/**"):
        with pytest.raises(InputError, match=r"1 link points to nothing: .*x\.parquet"):
            list_shards(str(url))
    assert len(list_shards(f"{tmp_path}/a*")) == 1
    (tmp_path / "x.parquet").unlink()
    (tmp_path / "folder").symlink_to(tmp_path / "gone")
    with pytest.raises(InputError, match="folder"):
        list_shards(str(tmp_path))
    (tmp_path / "folder").unlink()
    (tmp_path / "notes.txt").symlink_to(tmp_path / "gone")
    (tmp_path / "_x.parquet").symlink_to(tmp_path / "gone")
    (tmp_path / "b.parquet").symlink_to(tmp_path / "a.parquet")
    assert [shard.name for shard in list_shards(str(tmp_path))] == ["a.parquet", "b.parquet"]


@pytest.mark.parametrize("other", ["x.PARQUET", "x.pq", "x.jsonl.gz", "x.ndjson", "x.parquet.gzip"])
def test_two_files_of_one_output_are_refused_by_name(tmp_path: Path, other: str) -> None:
    parquet(tmp_path / "x.parquet")
    (tmp_path / other).write_bytes(b"")
    with pytest.raises(InputError, match=r"x\.parquet.* would both become x\.parquet") as caught:
        list_shards(str(tmp_path))
    assert other in str(caught.value)


class Echo:
    """Answers a prompt with itself."""

    kind = "generate"

    def respond(self, rows: list[Row], attempts: int) -> list[dict[str, Any]]:
        return [self.answer(row, attempts) for row in rows]

    def answer(self, row: Row, attempts: int) -> dict[str, Any]:
        answers = Answers("m", "0", pa.schema([]))
        if isinstance(row.request, RowError):
            return answers.error(row.custom_id, row.request, attempts)
        return answers.completion(row, [Generation(row.request.prompt, (1,), "stop", 1, 0)], attempts)  # type: ignore[union-attr]

    def pulse(self) -> Pulse:
        return Pulse()

    def close(self) -> None: ...


def answered(folder: Path, template: str, *keep: str) -> Path:
    """The responses of a job over all shards below folder/in."""
    job = JobConfig.model_validate(
        {
            "model": {"path": "m"},
            "input": {"path": str(folder / "in")},
            "output": {"path": str(folder / "out"), "keep": keep},
            "request": {"template": {"prompt": template}},
        }
    )
    plans = [plan_shard(shard) for shard in list_shards(job.input.path)]
    for plan in plans:
        check_input(job, plan)
    assert shared_schema(job, plans) is None
    manifest = Manifest(Storage.at(job.output.path), Fingerprint.of(job, "0" * 64, plans))
    manifest.begin()
    worker = Worker(job, Identity("m", "0"), manifest, Echo())  # type: ignore[arg-type]
    for plan in plans:
        worker.process(plan, Chunk(plan.shard.name, 0, plan.rows))
    return folder / "out/responses"


def test_hives_folders_are_columns_of_templates_and_of_what_is_kept(tmp_path: Path) -> None:
    parquet(tmp_path / "in/lang=de/day=2024-01-01/part-0.parquet", text=["a", "b"])
    parquet(tmp_path / "in/lang=f%2Fr%20/day=__HIVE_DEFAULT_PARTITION__/part-0.parquet", text=["c"])
    (tmp_path / "in/lang=en/day=x=y").mkdir(parents=True)
    (tmp_path / "in/lang=en/day=x=y/part-0.jsonl").write_text('{"text": "d", "id": "own"}\n')
    template = "{{ lang }} {{ day }} {{ row['text'] }} {{ row.lang }}"
    folder = answered(tmp_path, template, "lang", "day")
    found = {
        str(file.relative_to(folder)): pq.ParquetFile(file).read(["text", "lang", "day"]).to_pylist()
        for file in sorted(folder.rglob("*.parquet"))
    }
    assert found == {
        "lang=de/day=2024-01-01/part-0.parquet": [
            {"text": f"de 2024-01-01 {text} de", "lang": "de", "day": "2024-01-01"} for text in "ab"
        ],
        "lang=en/day=x=y/part-0.parquet": [{"text": "en x=y d en", "lang": "en", "day": "x=y"}],
        "lang=f%2Fr%20/day=__HIVE_DEFAULT_PARTITION__/part-0.parquet": [
            {"text": "f/r   c f/r ", "lang": "f/r ", "day": None}
        ],
    }


def test_a_glob_of_folders_is_all_that_is_in_them(tmp_path: Path) -> None:
    for name in ("lang=de/a/x.parquet", "lang=fr/y.parquet", "other/z.parquet", "lang=fr/notes.txt"):
        parquet(tmp_path / name)
    listing = list_input(f"{tmp_path}/lang=*")
    assert [shard.name for shard in listing.shards] == ["lang=de/a/x.parquet", "lang=fr/y.parquet"]
    assert listing.unread == ["lang=fr/notes.txt"]
    assert plan_shard(listing.shards[0]).partition == {"lang": "de"}


def test_a_files_own_column_goes_before_its_folders(tmp_path: Path) -> None:
    parquet(tmp_path / "in/year=2024/part-0.parquet", year=[2023], text=["a"])
    (tmp_path / "in/year=2024/x.jsonl").write_text('{"year": 2022, "text": "b"}\n{"text": "c"}\n')
    folder = answered(tmp_path, "{{ year }} {{ text }}", "year")
    texts = [
        pq.ParquetFile(file).read(["text"]).column(0).to_pylist()
        for file in sorted(folder.rglob("*.parquet"))
    ]
    assert texts == [["2023 a"], ["2022 b", "2024 c"]]


def test_a_folder_is_neither_a_field_nor_a_name(tmp_path: Path) -> None:
    parquet(tmp_path / "in/model=gpt-4/id=5/seed=x/part-0.parquet", prompt=["a", "b"])
    folder = answered(tmp_path, "{{ prompt }}{{ id }}")
    (file,) = folder.rglob("*.parquet")
    rows = pq.ParquetFile(file).read(["custom_id", "text"]).to_pylist()
    assert [row["text"] for row in rows] == ["a5", "b5"]
    assert [row["custom_id"].rpartition(":")[2] for row in rows] == ["0", "1"]


def test_a_kept_folders_column_can_be_read_with_its_folders(tmp_path: Path) -> None:
    for lang in ("de", "fr"):
        parquet(tmp_path / f"in/lang={lang}/year=2024/part-0.parquet", text=["a"])
    folder = answered(tmp_path, "{{ lang }}", "lang")
    names = ["text", "lang"]
    expected = [{"text": lang, "lang": lang} for lang in ("de", "fr")]
    assert pq.read_table(folder, columns=names).to_pylist() == expected
    assert pd.read_parquet(folder, columns=names).to_dict("records") == expected
    assert pl.read_parquet(folder, columns=names).to_dicts() == expected
    found = duckdb.sql(f"select text, lang from '{folder}/**/*.parquet' order by lang").fetchall()
    assert found == [("de", "de"), ("fr", "fr")]


def test_a_shard_that_lacks_a_folders_column_is_named(tmp_path: Path) -> None:
    parquet(tmp_path / "in/lang=de/a.parquet", text=["a"])
    parquet(tmp_path / "in/b.parquet", text=["a"])
    with pytest.raises(InputError, match=r"request\.template uses lang, but the input's columns are text"):
        answered(tmp_path, "{{ lang }}")
    with pytest.raises(InputError, match=r"b\.parquet: output\.keep names lang, but its columns are text"):
        answered(tmp_path, "{{ text }}", "lang")
