"""Other people's clients make their calls, unchanged."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.serve.clients.installed import node_with, python_with, run

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent
LANGCHAIN = ("langchain-openai",)
# It asks for the others where a request has tools, and to try again.
LITELLM = ("litellm", "mcp", "tenacity")


@pytest.fixture(params=["fake", "real"])
def service(request: pytest.FixtureRequest) -> dict[str, str]:
    environment: dict[str, str] = request.getfixturevalue(request.param)
    return environment


def test_openai_for_node(service, packages):
    node = node_with(packages / "node", "openai", "zod")
    said = run([node, str(HERE / "calls.mjs")], service | {"PACKAGES": str(packages / "node")})
    assert "calls of openai" in said


@pytest.mark.parametrize(
    ("name", "wanted"), [("langchain", LANGCHAIN), ("litellm", LITELLM)], ids=["langchain", "litellm"]
)
def test_a_client_for_python(service, packages, name, wanted):
    python = python_with(packages / name, *wanted)
    assert f"calls of {wanted[0]}" in run([str(python), str(HERE / f"{name}_calls.py")], service)
