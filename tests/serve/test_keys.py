"""Keys as they are written down, and what is said of them."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.serve.door import Door
from pipeline.serve.hello import hello
from pipeline.serve.key_lines import key_lines
from pipeline.serve.keys import ENVIRONMENT, Keys
from tests.serve.live import live

NAMES = st.from_regex(r"[\w.@-]+", fullmatch=True)
KEYS = st.text(st.characters(codec="utf-8", exclude_categories=("Z", "C")), min_size=1)


@pytest.mark.parametrize(
    ("line", "name", "key"),
    [
        ("secret", "", "secret"),
        ("ann:secret", "ann", "secret"),
        ("  ann : secret\r", "ann", "secret"),
        ("ann:sk:1", "ann", "sk:1"),
        ("ann:sk:1:", "ann", "sk:1:"),
        (":sk:1", "", "sk:1"),
        ("::", "", ":"),
        (":#1", "", "#1"),
        ("a+b/c:d", "", "a+b/c:d"),
        ("ann@example.org:x", "ann@example.org", "x"),
    ],
)
def test_the_first_colon_ends_the_name_where_there_can_be_one(line, name, key):
    (found,) = key_lines(f"# comment\n\n{line}", "keys")
    assert (found.name, found.key, found.line) == (name, key, 3)


@settings(max_examples=200)
@given(st.lists(st.tuples(NAMES | st.just(""), KEYS), unique_by=lambda pair: pair[1], min_size=1))
def test_every_key_can_be_written_down(pairs):
    lines = key_lines("\n".join(f"{name}:{key}" for name, key in pairs), "keys")
    assert [(line.name, line.key) for line in lines] == pairs


@pytest.mark.parametrize(
    ("text", "said"),
    [("ann:", "line 1 has no key behind ann"), ("x\ny\nann:x", "line 3 has the key of line 1")],
)
def test_lines_that_are_wrong_are_refused_without_the_key(text, said):
    with pytest.raises(ConfigError, match=said):
        key_lines(text, "keys")


@settings(max_examples=10, deadline=None)
@given(key=KEYS.filter(lambda key: "," not in key), name=NAMES | st.just(""), blank=st.booleans())
def test_a_shell_finds_the_first_key_where_it_is_kept(tmp_path_factory, key, name, blank):
    file = tmp_path_factory.mktemp("it's here") / "keys file"
    text = ("# ours\n\n" if blank else "") + f"  {name}:{key} \r\nother"
    file.write_bytes(text.encode())
    of_environment = Keys.of_environment({ENVIRONMENT: text})
    assert of_environment
    for keys in (Keys.of_file(file), of_environment):
        command = ["sh", "-c", f'printf %s "$({keys.first})"']
        found = subprocess.run(
            command, env={**os.environ, ENVIRONMENT: text}, capture_output=True, check=True
        )
        assert found.stdout.decode() == key


def test_what_is_said_at_the_start_names_no_key_and_the_command_works(tmp_path: Path):
    file = tmp_path / "keys"
    file.write_text("".join(f"user{at}:se:cret{at}\n" for at in range(7)))
    keys = Keys.of_file(file)
    with live(Door(keys=keys)) as service:
        who, tried = hello(f"{service.url}/v1", keys, service.service.kind)
        assert "cret" not in who + tried
        assert who == f"API keys of user0, user1, user2, user3, user4 and 2 more, from {file}"
        answer = run_curl(tried.removeprefix("try: "))
        assert answer["object"] == "chat.completion"


def test_without_keys_the_command_works(chats, vectors):
    for service, kind in ((chats, "chat.completion"), (vectors, "list")):
        who, tried = hello(f"{service.url}/v1", None, service.service.kind)
        assert "no API key" in who
        assert run_curl(tried.removeprefix("try: "))["object"] == kind


def run_curl(command: str) -> dict[str, object]:
    """What curl would do: its words, after the shell has done its part."""
    words = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {command}"], capture_output=True, check=True, text=True
    ).stdout.split("\0")
    program, url, *rest, nothing = words
    options = list(zip(rest[::2], rest[1::2], strict=True))
    headers = dict(value.split(": ", 1) for option, value in options if option == "-H")
    (body,) = [value for option, value in options if option == "-d"]
    assert (program, nothing, {option for option, _ in options}) == ("curl", "", {"-H", "-d"})
    assert shlex.split(command)[1] == url
    answer = httpx.post(url, headers=headers, content=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, object] = answer.json()
    return found
