"""schemathesis, on the OpenAPI document of a live service: no failure of the service, and no answer that the
document doesn't describe."""

from __future__ import annotations

import os

import pytest

from tests.serve.clients.installed import python_with, run

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
SECONDS = 60
HOOKS = '''
import schemathesis


@schemathesis.hook
def map_body(context, body):
    """Any other model is only refused, and long answers take long."""
    if isinstance(body, dict):
        body = {**body, "model": "local"}
        if isinstance(body.get("max_tokens"), int):
            body["max_tokens"] = min(body["max_tokens"], 8)
    return body
'''


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["chats", "vectors"])
def test_nothing_fails(kind, request, packages, tmp_path):
    live = request.getfixturevalue(kind)
    python = python_with(packages / "schemathesis", "schemathesis")
    (tmp_path / "hooks.py").write_text(HOOKS)
    command = [str(python.with_name("schemathesis")), "run", f"{live.url}/openapi.json", "--checks", CHECKS]
    command += ["--max-time", str(SECONDS), "--continue-on-failure", "--seed", "1"]
    # Of how well examples can be made: of no interest here.
    command += ["--suppress-health-check", "all"]
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(tmp_path)}
    said = run(command, environment, seconds=10 * SECONDS, folder=tmp_path)
    assert " passed" in said
