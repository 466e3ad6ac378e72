"""Text from tokens: whole characters, and nothing of a stop string, however tokens cut them."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from pipeline.engine.text import TextStream


def stream_of(pieces: list[bytes], stops: tuple[str, ...] = ()) -> tuple[str, bool]:
    stream = TextStream(pieces.__getitem__, stops)
    stopped = any(stream.push(at) for at in range(len(pieces)))
    return stream.finish(), stopped


def cut(data: bytes, borders: list[int]) -> list[bytes]:
    edges = [0, *sorted(border % (len(data) + 1) for border in borders), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


@given(text=st.text(max_size=30), borders=st.lists(st.integers(0, 99), max_size=8))
def test_characters_survive_any_cut_between_bytes(text, borders):
    assert stream_of(cut(text.encode(), borders)) == (text, False)


@given(
    text=st.text(alphabet="abé", max_size=30),
    stops=st.lists(st.text(alphabet="abé", min_size=1, max_size=4), min_size=1, max_size=3),
    borders=st.lists(st.integers(0, 99), max_size=8),
)
def test_the_text_ends_before_the_first_stop_string_to_become_whole(text, stops, borders):
    found, stopped = stream_of(cut(text.encode(), borders), tuple(stops))
    assert stopped == any(stop in text for stop in stops)
    assert text.startswith(found)
    # What is left out begins with a stop string, and none is whole in what is kept.
    assert not any(stop in found for stop in stops)
    assert not stopped or any(text[len(found) :].startswith(stop) for stop in stops)
    assert stopped or found == text


def test_a_character_that_never_became_whole_is_replaced():
    assert stream_of([b"a\xc3"]) == ("a�", False)
    assert stream_of([b"a\xc3", b"b"]) == ("a�b", False)


@given(
    text=st.text(alphabet="abé", max_size=30),
    stops=st.lists(st.text(alphabet="abé", min_size=1, max_size=4), max_size=3),
    borders=st.lists(st.integers(0, 99), max_size=8),
)
def test_only_what_a_stop_string_may_begin_with_is_withheld(text, stops, borders):
    pieces = cut(text.encode(), borders)
    stream, seen = TextStream(pieces.__getitem__, tuple(stops)), [""]
    for at in range(len(pieces)):
        if stream.push(at):
            break
        seen.append(stream.so_far())
        decoded = b"".join(pieces[: at + 1]).decode(errors="ignore")
        held = decoded.removeprefix(seen[-1])
        assert not held or any(stop.startswith(held) for stop in stops)
    assert all(stream.finish().startswith(part) for part in seen)
