"""`nightherd report`: one page that works offline, says what it shows, and looks like it should."""

from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.errors import ConfigError, OutputError, RowError
from pipeline.input.shards import Chunk
from pipeline.output.manifest import Manifest
from pipeline.output.records import RECORD
from pipeline.output.verify import verify
from pipeline.report.asked import asked
from pipeline.report.page import write_report
from tests.answered import Answered
from tests.report.browser import DARK, LIGHT, Browser, share_of

TOPICS = ["computers", "food", "law", "a <b>bold</b> & $costly$ topic"]
KEPT = pa.schema({"topic": pa.string(), "body": pa.string()})
HOSTILE = "<script>document.title = 'taken over'</script>"


def night(url: str, rows: int = 400) -> Answered:
    """A labelling job of a night, with a pause, some errors, and texts that try to be markup."""
    draw = np.random.default_rng(5)

    def row(number: int) -> tuple[Any, dict[str, str]]:
        gold = TOPICS[number % len(TOPICS)]
        kept = {"topic": gold, "body": f"{HOSTILE} {number} " + "word " * 60}
        if number % 40 == 7:
            return RowError("context_length_exceeded", f"too long: {HOSTILE}", "messages"), kept
        scores = draw.normal(size=len(TOPICS)) + 2 * (np.array(TOPICS) == gold)
        shares = np.exp(scores) / np.exp(scores).sum()
        labels = {topic: math.log(share) for topic, share in zip(TOPICS, shares, strict=True)}
        created = 1_790_000_000 + 40 * number + (7200 if number > rows / 2 else 0)
        answer = {"text": max(labels, key=labels.__getitem__), "labels": labels, "created": created}
        return answer | {"prompt_tokens": int(draw.lognormal(4, 0.5)), "seconds": draw.lognormal()}, kept

    found = [row(number) for number in range(rows)]
    shards = {"a.parquet": found[: rows // 2], "b/c.parquet": found[rows // 2 :]}
    request = {"template": {"messages": [{"role": "user", "content": "Topic? {{ body }}"}]}}
    return Answered(url, shards, KEPT, request=request, name=f"night {HOSTILE}")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "out"
    night(str(folder)).finish()
    assert write_report(str(folder), gold="topic") == f"{folder}/report.html"
    return folder / "report.html"


def test_the_page_needs_nothing_beside_itself(report):
    page = report.read_text()
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!#)|@import|url\((?!#)""", page)
    assert HOSTILE not in page
    assert "&lt;script&gt;" in page
    assert len(page) < 600_000


def test_a_browser_shows_every_section(report, tmp_path):
    text, found = Browser.found().probe(report, tmp_path)
    probe = json.loads(found)
    for words in ("Throughput", "Time without any answer", "Labels", "Against the gold labels in topic"):
        assert words in text
    for words in ("Errors", "context_length_exceeded: 10 rows", "Lengths and times", "Answers to read"):
        assert words in text
    for words in ("Slowest rows", "What was run", "390 of 400 rows answered", "finished"):
        assert words in text
    # Texts are shown as they are, and stay texts.
    assert HOSTILE in text
    assert "a <b>bold</b> & $costly$ topic" in text
    assert probe["loaded"] == []
    assert probe["wide"] == []
    assert len(probe["charts"]) == 8
    assert all(width > 300 and height > 90 and not out for width, height, out in probe["charts"])


def test_it_fits_a_telephone(report, tmp_path):
    probe = json.loads(Browser.found().probe(report, tmp_path, "500,2000")[1])
    assert [place for place in probe["wide"] if "<t" not in place] == []


@pytest.mark.parametrize(
    ("flag", "page", "card", "first", "bad"),
    [
        (LIGHT, "#f6f5f2", "#ffffff", "#2f6690", "#b5453c"),
        (DARK, "#15171a", "#1d2024", "#7db3dc", "#e5837a"),
    ],
)
def test_light_and_dark_pictures_have_their_colours(report, tmp_path, flag, page, card, first, bad):
    shot = Browser.found().picture(report, tmp_path / "shot.png", flag)
    assert shot.pixels.shape[:2] == (3000, 1100)
    assert share_of(shot, page) > 0.05
    assert share_of(shot, card) > 0.4
    # The charts are drawn in the page's colours: bars, and the number of errors.
    assert share_of(shot, first) > 0.002
    assert share_of(shot, bad) > 0.00001
    assert "CONSOLE" not in shot.log


def test_a_report_leaves_the_output_sound(report):
    assert verify(str(report.parent)).problems == []
    before = report.read_bytes()
    write_report(str(report.parent), gold="topic")
    made = re.compile(rb"Made by nightherd.*")
    assert made.sub(b"", report.read_bytes()) == made.sub(b"", before)


def test_an_unfinished_job_has_a_report_that_says_so(tmp_path):
    job = night(str(tmp_path / "out")).commit("a.parquet")
    job.commit_chunk(Chunk("b/c.parquet", 20, 50))
    page = Path(write_report(job.url)).read_text()
    assert "This job is not finished." in page
    assert "the 230 rows that are committed; 170 of 400 are still to come" in page
    # It is in nobody's way: not the job's that goes on, nor of one whose record was lost.
    job.manifest.output.remove(RECORD)
    assert Manifest(job.manifest.output, job.manifest.fingerprint).begin() is False
    job.finish()
    assert verify(job.url).problems == []
    assert "not finished" not in Path(write_report(job.url)).read_text()


def test_a_job_without_any_answer_has_a_report(tmp_path):
    empty = night(str(tmp_path / "out"))
    assert "the 0 rows that are committed" in Path(write_report(empty.url, gold="topic")).read_text()
    nothing = Answered(str(tmp_path / "nothing"), {"a.parquet": []}).finish()
    assert "of 0 rows answered" in Path(write_report(nothing.url)).read_text()


@pytest.mark.parametrize("name", ["genre", "text", "custom_id", ""])
def test_a_gold_column_that_is_not_there_is_named(tmp_path, name):
    job = night(str(tmp_path / "out"), 8).finish()
    done = CliRunner().invoke(app, ["report", job.url, "--gold", name])
    assert done.exit_code == 2
    assert f"--gold {name}: the output has no such column of the input" in done.output
    assert "topic, body" in done.output
    assert "output.keep" in done.output


def test_a_gold_column_of_other_values_is_doubted(tmp_path):
    page = Path(write_report(night(str(tmp_path / "out"), 20).finish().url, gold="body")).read_text()
    assert "No answer is one of the labels in body: is it the column that holds them?" in page


def test_a_gold_column_without_labels_is_said(tmp_path):
    rows = [("yes", {"gold": None})] * 4
    job = Answered(str(tmp_path / "out"), {"a.parquet": rows}, pa.schema({"gold": pa.string()})).finish()
    page = Path(write_report(job.url, gold="gold")).read_text()
    assert "No row has both an answer and a label in <code>gold</code>" in page


def test_where_no_job_is_there_is_no_report(tmp_path):
    with pytest.raises(OutputError, match="no job has begun there"):
        write_report(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_it_may_lie_elsewhere(tmp_path):
    job = night("memory://reported", 8).finish()
    assert write_report(job.url) == "memory://reported/report.html"
    assert job.manifest.output.read_bytes("report.html").startswith(b"<!doctype html>")
    done = CliRunner().invoke(app, ["report", job.url, "--html", str(tmp_path / "here.html")])
    assert (done.exit_code, done.stdout) == (0, f"report: {tmp_path}/here.html\n")
    assert [path.name for path in tmp_path.iterdir()] == ["here.html"]
    with pytest.raises(ConfigError, match="--html"):
        write_report(job.url, str(tmp_path))


def test_without_matplotlib_it_says_what_to_install(tmp_path, monkeypatch):
    job = night(str(tmp_path / "out"), 8).finish()
    for name in [name for name in sys.modules if name.startswith("matplotlib")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = CliRunner().invoke(app, ["report", job.url])
    assert done.exit_code == 2
    assert 'pip install "nightherd[report]"' in done.output


def test_answers_are_shown_beside_what_was_asked(tmp_path):
    (tmp_path / "in").mkdir()
    prompts = [f"Is {n} <b>even</b>?" for n in range(6)]
    pq.write_table(pa.table({"prompt": [*prompts[:5], ""]}), tmp_path / "in/a.parquet")
    places = [("a.parquet", n) for n in range(6)] + [("gone.parquet", 0), ("a.parquet", 99)]
    found = asked(str(tmp_path / "in"), str(tmp_path / "out"), {}, places[:-1])
    assert found == {("a.parquet", n): prompts[n] for n in range(5)}
    assert asked(str(tmp_path / "nowhere"), str(tmp_path / "out"), {}, places) == {}
    rows = [("yes", {})] * 6
    job = Answered(str(tmp_path / "out"), {"a.parquet": rows}, input_url=str(tmp_path / "in")).finish()
    page = Path(write_report(job.url)).read_text()
    assert "Is 3 &lt;b&gt;even&lt;/b&gt;?" in page


def test_a_report_of_vectors_has_a_map(tmp_path):
    draw = np.random.default_rng(2)
    rows = [(draw.normal(size=12), {"group": f"group {n % 3}"}) for n in range(60)]
    rows += [*rows[:5], (RowError("invalid_request", "why"), {"group": None})]
    job = Answered(str(tmp_path / "out"), {"a.parquet": rows}, pa.schema({"group": pa.string()}), "embed")
    page = Path(write_report(job.finish().url, gold="group")).read_text()
    assert "65 vectors of 12 dimensions; 5 are equal to an earlier one" in page
    assert "two principal components" in page
    assert "group 2" in page
    assert "Against the gold" not in page
