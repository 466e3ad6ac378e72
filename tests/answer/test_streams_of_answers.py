"""The deltas of an answer add up to the same answer unstreamed: its texts, its calls, and its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.answer.answer import Generated, ToolCall
from pipeline.answer.delta import Delta
from pipeline.answer.openai_body import chunk_choice
from pipeline.chat.chat_format import ChatFormats
from pipeline.engine.engine import Engine
from pipeline.engine.fakes.fake import FakeModel
from pipeline.engine.model import NoRoom
from pipeline.engine.runner import Runner
from pipeline.request.schema import Request, parse_request
from pipeline.respond.about import About
from pipeline.respond.generative_service import GenerativeService

CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"
TEMPLATE = (
    "{% for t in tools or [] %}{{ t | tojson }}{% endfor %}"
    "{% for m in messages %}{{ m.role }}: {{ m.content }}"
    '{% for c in m.tool_calls or [] %}<tool_call>\n{"name": "{{ c.function.name }}", '
    '"arguments": {{ c.function.arguments | tojson }}}\n</tool_call>{% endfor %}\n{% endfor %}<think>'
)
TOOL = {
    "type": "function",
    "function": {
        "name": "f",
        "parameters": {"type": "object", "properties": {"x": {"enum": ["é", "bb"]}}, "required": ["x"]},
    },
}
shared = st.fixed_dictionaries(
    {"max_tokens": st.integers(1, 40), "n": st.integers(1, 3), "seed": st.integers(0, 99)},
    optional={
        "temperature": st.sampled_from([0, 1.0, 2.0]),
        "stop": st.lists(st.text("abcde", min_size=1, max_size=3), min_size=1, max_size=3),
    },
)
ruled = st.sampled_from(
    [
        {},
        {"guided_choice": ["abc", "abd", "b\u00e9"]},
        {"guided_choice": ["abc", "abd"], "label_logprobs": True},
        {"guided_regex": "[a-c\u00e9\U0001f600]{2,9}"},
        {"guided_regex": "(ab|</think>|[ \n])+"},
    ]
)
chats = st.builds(
    lambda body, rule: (CHAT, {"messages": [{"role": "user", "content": "hello"}]} | body | rule),
    shared,
    st.one_of(
        ruled,
        st.just({"logprobs": True, "top_logprobs": 2}),
        st.just({"tools": [TOOL]}),
        st.just({"tools": [TOOL], "tool_choice": "required"}),
    ),
)
completions = st.builds(
    lambda body, rule, more: (COMPLETION, {"prompt": "hello"} | body | rule | more),
    shared,
    ruled,
    st.sampled_from([{}, {"echo": True}, {"logprobs": 2}, {"logprobs": 0, "echo": True}]),
)


class Case:
    """The fake model, in whose prompts a model begins to think; rows are thrown out now and then."""

    def __init__(self, *, reproducible: bool) -> None:
        self.model = FakeModel(cells=1200, split=reproducible, max_sequences=9, context=300)
        self.engine = Engine(self.model, slots=4, step_tokens=64, reproducible=reproducible)
        self.model.fails = self._throw_out
        formats = ChatFormats(TEMPLATE)
        runner = Runner(self.engine)
        self.service = GenerativeService(
            runner, self.model.vocabulary, About(digest="d"), context=300, formats=formats
        )

    def answers(self, requests: Sequence[Request]) -> list[tuple[Generated, list[Delta]]]:
        heard: list[list[Delta]] = [[] for _ in requests]
        handles = [
            self.service.ask(request, str(at), listen=heard[at].extend) for at, request in enumerate(requests)
        ]
        return [(handle.result.result(30), deltas) for handle, deltas in zip(handles, heard, strict=True)]  # type: ignore[misc]

    def unstreamed(self, requests: Sequence[Request]) -> list[Generated]:
        handles = [self.service.ask(request, str(at)) for at, request in enumerate(requests)]
        return [handle.result.result(30) for handle in handles]  # type: ignore[misc]

    def _throw_out(self, batch: Any) -> None:
        if self.model.calls % 7 == 0 and self.engine.running > 1:
            raise NoRoom("a row has to start again")


@settings(deadline=None, max_examples=20)
@given(st.lists(chats | completions, min_size=1, max_size=3), st.booleans())
def test_deltas_add_up_to_the_answer_without_a_stream(bodies: list[Any], reproducible: bool) -> None:
    case = Case(reproducible=reproducible)
    requests = [parse_request(endpoint, body) for endpoint, body in bodies]
    for request, plain, (answer, deltas) in zip(
        requests, case.unstreamed(requests), case.answers(requests), strict=True
    ):
        assert [choice.content for choice in plain.choices] == [choice.content for choice in answer.choices]
        for index, choice in enumerate(plain.choices):
            mine = [delta for delta in deltas if delta.choice == index]
            assert "".join(delta.text for delta in mine) == plain.echo + (choice.content or "")
            assert "".join(delta.reasoning for delta in mine) == (choice.reasoning or "")
            assert _calls(mine) == choice.calls
            assert _tokens([delta.logprobs for delta in mine]) == _tokens([choice.logprobs])
            assert [delta.finish_reason for delta in mine][-1] == choice.finish_reason
            assert all(
                delta.text or delta.reasoning or delta.calls or delta.finish_reason for delta in mine
            ), "an empty delta"
            assert not any("\ufffd" in delta.text for delta in mine) or "\ufffd" in str(choice)
            assert all(chunk_choice(request, delta)["index"] == index for delta in mine)
    case.service.close()


def _calls(deltas: Sequence[Delta]) -> tuple[ToolCall, ...]:
    calls: dict[int, list[str]] = {}
    for call in (call for delta in deltas for call in delta.calls):
        if call.id is not None:
            assert call.index == len(calls)
            calls[call.index] = [call.id, call.name or "", ""]
        calls[call.index][2] += call.arguments
    return tuple(ToolCall(*parts) for parts in calls.values())


def _tokens(logprobs: Sequence[Any]) -> dict[str, list[Any]]:
    """Each list of the records that has anything, joined."""
    joined: dict[str, list[Any]] = {}
    for record in filter(None, logprobs):
        for name, values in record.items():
            joined.setdefault(name, []).extend(values or ())
    return {name: values for name, values in joined.items() if values}
