"""Equal rows are computed once: each key has one owner, and everybody else gets the owner's answer."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from hypothesis import given
from hypothesis import strategies as st

from pipeline.engine.sequence import Generation
from pipeline.job.actors.answer_board import AnswerBoard
from pipeline.request.schema import parse_request
from pipeline.respond.ask import Generations, key_of
from pipeline.respond.reuse import Claims

CHAT = {"messages": [{"role": "user", "content": "hello"}]}


def key(**fields: object) -> bytes | None:
    return key_of(parse_request("/v1/chat/completions", CHAT | fields))


@given(st.lists(st.integers(0, 5), max_size=30))
def test_a_key_is_owned_once(keys):
    claims: Claims[int] = Claims()
    owned = []
    for number in keys:
        answer, mine = claims.claim(bytes([number]))
        if mine:
            owned.append(number)
            answer.set_result(number)
        assert answer.result() == number
    assert sorted(owned) == sorted(set(keys))


def test_rows_without_a_key_are_all_their_own():
    claims: Claims[int] = Claims()
    assert all(claims.claim(None)[1] for _ in range(3))


def test_a_forgotten_key_is_owned_anew():
    claims: Claims[int] = Claims()
    claims.claim(b"a")
    claims.forget(b"a")
    assert claims.claim(b"a")[1]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 5)), max_size=40), st.integers(5, 12))
def test_known_answers_stay_while_there_is_room_and_the_longest_unused_go_first(asked, room):
    claims: Claims[int] = Claims(room)
    kept: dict[int, int] = {}
    for number, size in asked:
        _, mine = claims.claim(bytes([number]))
        assert mine == (number not in kept)
        if mine:
            claims.keep(bytes([number]), size)
        kept[number] = kept.pop(number, size)
        while sum(kept.values()) > room:
            del kept[next(iter(kept))]


def test_many_threads_share_one_answer():
    claims: Claims[int] = Claims()

    def ask(number: int) -> tuple[int, bool]:
        answer, mine = claims.claim(b"k")
        if mine:
            answer.set_result(number)
        return answer.result(10), mine

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(ask, range(64)))
    assert len({answer for answer, _ in found}) == 1
    assert sum(mine for _, mine in found) == 1


def test_requests_with_one_possible_answer_have_a_key():
    assert key(temperature=0) is not None
    assert key(temperature=1, seed=3) is not None
    assert key(temperature=1) is None


def test_a_key_is_the_same_whoever_asks_and_differs_with_what_is_asked():
    assert key(temperature=0, user="a", metadata={"x": "1"}) == key(temperature=0)
    asks = [{}, {"max_tokens": 3}, {"stop": "x"}, {"n": 2}, {"guided_choice": ["a", "b"]}, {"logprobs": True}]
    assert len({key(temperature=0, **ask) for ask in asks}) == len(asks)


def test_a_board_tells_what_was_noted_and_forgets_the_oldest():
    answer = Generations((Generation("yes", (1,), "stop", 3, 0),))
    board = AnswerBoard(room=2 * answer.size)
    for key in (b"a", b"b", b"c"):
        board.note({key: answer})
    assert board.look([b"a", b"b", b"c", b"d"]) == {b"b": answer, b"c": answer}


def test_rows_that_differ_in_a_variable_of_the_template_are_not_equal() -> None:
    """vLLM#17356: enable_thinking changes the prompt, and so the answer."""
    on, off = ({"chat_template_kwargs": {"enable_thinking": value}} for value in (True, False))
    greedy = {"temperature": 0}
    keys = [key(**greedy), key(**greedy, **on), key(**greedy, **off), key(**greedy, reasoning_effort="low")]
    assert len(set(keys)) == 4
    assert key(**greedy, **on) == keys[1]
