"""Control tokens that mark reasoning and calls belong to an answer's text; all others are no text.

llamafarm#753: without them gpt-oss's channels ran together, as "analysis...assistantfinal...".
"""

from __future__ import annotations

import json

import pyarrow as pa

from pipeline.answer.answers import Answers
from pipeline.answer.logprobs import LogprobWriter
from pipeline.chat.chat_format import ChatFormat, ChatFormats
from pipeline.chat.pieces import Pieces
from pipeline.engine.engine import Engine
from pipeline.engine.fakes.fake import IM_END, IM_START, FakeModel, FakeVocabulary
from pipeline.engine.priority import Deadlines
from pipeline.engine.runner import Runner
from pipeline.engine.sampling.logprobs import TokenLogprob
from pipeline.engine.sequence import Generation
from pipeline.engine.text import TextStream
from pipeline.request.rows import Row
from pipeline.request.schema import parse_request
from pipeline.respond.generative_responder import GenerativeResponder
from pipeline.respond.generative_service import GenerativeService

VOCABULARY = FakeVocabulary()
# A model that marks its calls by a control token, as Mistral's, Granite's and DeepSeek's do.
TEMPLATE = (
    "{% if tools %}{{ tools }}{% endif %}{% for m in messages %}[{{ m.role }}]{{ m.content or '' }}"
    "{% for c in m.tool_calls or [] %}<|im_start|>{{ c.function.name }}:{{ c.function.arguments | tojson }}"
    "{% endfor %}[end]{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)
PARAMETERS = {
    "type": "object",
    "properties": {"zone": {"enum": ["UTC"]}},
    "additionalProperties": False,
}
NOW = {
    "type": "function",
    "function": {"name": "now", "parameters": PARAMETERS},
}


def test_only_the_marks_of_a_form_are_text() -> None:
    piece = Pieces(VOCABULARY).showing(("<|im_start|>call:",))
    assert [piece(token) for token in (IM_START, IM_END, 65)] == [b"<|im_start|>", b"", b"A"]
    assert Pieces(VOCABULARY).showing(())(IM_START) == b""


def test_marks_are_looked_for_where_they_mean_something() -> None:
    chat = ChatFormat(TEMPLATE)
    assert any("<|im_start|>" in mark for mark in chat.marks(tools=True))
    assert chat.marks(tools=False) == ()
    thinks = ChatFormat("{{ messages[0].content }}[THINK][/THINK]")
    assert thinks.marks(tools=False) == ("[THINK]", "[/THINK]")
    channels = "{{ messages[0].content }}<|channel|>commentary<|message|>"
    assert "<|channel|>" in ChatFormat("{{ tools }}" + channels).marks(tools=False)


def test_a_call_that_a_control_token_marks_is_read_as_one() -> None:
    model = FakeModel(cells=4096, context=1024)
    formats = ChatFormats(TEMPLATE)
    answers = Answers("m", "0", pa.schema([]), vocabulary=model.vocabulary, formats=formats)
    responder = GenerativeResponder(
        GenerativeService(
            Runner(Engine(model, slots=2)),
            model.vocabulary,
            context=1024,
            deadlines=Deadlines(60),
            formats=formats,
        ),
        answers,
    )
    body = {
        "messages": [{"role": "user", "content": "What time?"}],
        "tools": [NOW],
        "tool_choice": "required",
        "logprobs": True,
        "seed": 1,
    }
    try:
        (record,) = responder.respond([Row("a", parse_request("/v1/chat/completions", body))], 1)
    finally:
        responder.close()
    (choice,) = record["choices"]
    (call,) = choice["message"]["tool_calls"]
    assert (choice["message"]["content"], choice["finish_reason"]) == (None, "tool_calls")
    assert call["function"]["name"] == "now"
    assert json.loads(call["function"]["arguments"]) in ({}, {"zone": "UTC"})
    assert choice["logprobs"]["content"][0]["token"] == "<|im_start|>"


def test_logprobs_are_of_the_tokens_of_the_text_marks_included() -> None:
    piece = Pieces(VOCABULARY).showing(("<|im_start|>",))
    tokens = (IM_START, *b"ab", *b"STOP")
    stream = TextStream(piece, ("STOP",))
    for token in tokens:
        stream.push(token)
    entries = tuple(TokenLogprob(token, -1.0, ()) for token in tokens)
    generation = Generation(stream.finish(), tokens, "stop", 1, 0, entries)
    assert generation.text == "<|im_start|>ab"
    listed = LogprobWriter(VOCABULARY).chat(generation, piece)
    assert listed is not None
    assert [entry["token"] for entry in listed["content"]] == ["<|im_start|>", "a", "b"]
