"""Which replica gets a request, by what it begins with and how much each has to do."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from pipeline.serve.cluster.beginnings import BLOCK, MOST_BLOCKS, beginnings
from pipeline.serve.cluster.placement import UNEVEN, Placement
from pipeline.serve.cluster.wish import Wish

SYSTEM = {"role": "system", "content": "You are " + "very " * 200}


def chat(*contents: str, **fields: object) -> list[str]:
    messages = [SYSTEM, *({"role": "user", "content": text} for text in contents)]
    return beginnings(json.dumps({"model": "local", "messages": messages, **fields}).encode())


def shared(one: list[str], other: list[str]) -> int:
    """How many hashes are alike from the start; behind them, none is."""
    alike = sum(a == b for a, b in zip(one, other, strict=False))
    assert one[:alike] == other[:alike] and not set(one[alike:]) & set(other[alike:])
    return alike


def test_prompts_that_begin_alike_share_their_first_hashes():
    first, second = chat("a" * 2000), chat("b" * 2000)
    assert 0 < shared(first, second) < len(first)
    # A conversation that goes on has all of what it had.
    longer = chat("a" * 2000, "and then?")
    assert shared(first, longer) >= len(first) - 1


def test_what_stands_before_the_messages_counts():
    tools = [{"type": "function", "function": {"name": "f" * BLOCK}}]
    assert shared(chat("a"), chat("a", tools=tools)) == 0
    assert shared(chat("a"), chat("a", system="You are kind. " * BLOCK)) == 0  # Of Anthropic's messages.
    assert shared(chat("a"), chat("a", temperature=1, max_tokens=3)) == len(chat("a"))


@given(st.text(max_size=3000), st.text(max_size=3000), st.text(max_size=300))
def test_completions_share_as_many_hashes_as_whole_blocks(common, one, other):
    found = [beginnings(json.dumps({"prompt": common + rest}).encode()) for rest in (one, other)]
    assert shared(*found) >= len(common) // BLOCK


def test_a_body_of_any_kind_has_at_most_so_many_hashes():
    assert len(beginnings(json.dumps({"prompt": "x" * 10**5}).encode())) == MOST_BLOCKS
    for body in (
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"messages": 3}',
        b'{"prompt": null}',
        b"[" * 10**5,
        b'"\\ud800"',
    ):
        assert beginnings(body) == []
    assert beginnings(json.dumps({"prompt": "\ud800" * BLOCK}).encode())


def test_a_beginning_goes_where_it_was_seen():
    placement = Placement()
    placement.keep(["a", "b", "c"])
    placement.saw("b", ["1", "2"])
    placement.saw("c", ["1"])
    assert placement.order("abc", ["1", "2", "3"])[0] == "b"
    assert placement.order("abc", ["1", "4"])[0] in ("b", "c")
    assert sorted(placement.order("abc", ["9"])) == ["a", "b", "c"]
    assert placement.order("ac", ["1", "2", "3"])[0] == "c"


def test_what_is_unknown_goes_to_the_one_with_the_least_to_do():
    placement = Placement()
    placement.keep("abc")
    for name, load in (("a", 3), ("b", 1), ("c", 2)):
        placement.told(name, load)
    assert placement.order("abc", []) == ["b", "c", "a"]


@given(st.lists(st.booleans(), min_size=1, max_size=80))
def test_no_replica_gets_much_more_than_the_average_however_alike_requests_are(ends):
    """ends: whether a request ends before the next one, the oldest of the replica with the most."""
    placement, replicas = Placement(), ["a", "b", "c"]
    placement.keep(replicas)
    for end in ends:
        chosen = placement.order(replicas, ["same"])[0]
        placement.sent(chosen)
        placement.saw(chosen, ["same"])
        loads = [placement.load(name) for name in replicas]
        assert placement.load(chosen) <= max(min(loads) + 1, UNEVEN * sum(loads) / 3 + 1)
        if end:
            placement.done(max(replicas, key=placement.load))


def test_what_has_nothing_to_go_by_goes_round_and_proxies_do_alike_with_the_rest():
    one, other = Placement(), Placement()
    for placement in (one, other):
        placement.keep("abc")
    assert {one.order("abc", [])[0] for _ in range(50)} == {"a", "b", "c"}
    firsts = [[placement.order("abc", [str(n)])[0] for n in range(50)] for placement in (one, other)]
    assert firsts[0] == firsts[1] and set(firsts[0]) == {"a", "b", "c"}


def test_what_is_on_its_way_counts_and_so_does_what_others_have_sent():
    placement = Placement()
    placement.keep("ab")
    placement.promised("a")
    assert placement.order("ab", [])[0] == "b"
    placement.settled("a")
    for _ in range(3):
        placement.sent("a")
    placement.told("a", 1)  # Two have not arrived yet.
    assert placement.load("a") == 3
    placement.told("b", 5)  # From another proxy.
    assert placement.order("ab", [])[0] == "a"
    for _ in range(4):
        placement.done("a")
    assert placement.load("a") == 0


def test_a_replica_that_is_gone_is_forgotten():
    placement = Placement()
    placement.keep(["a", "b"])
    placement.saw("a", ["1"])
    placement.keep(["b", "c"])
    placement.saw("c", ["1"])
    assert placement.order("bc", ["1"])[0] == "c"
    assert placement.load("a") == 0


def test_a_wish_survives_its_header():
    for wish in (Wish(), Wish(("1", "2")), Wish(replica="x")):
        assert Wish.read(wish.written()) == wish
