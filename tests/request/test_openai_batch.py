"""A file of requests written for OpenAI's Batch API runs unchanged, and comes back in its result format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from openai.types.chat import ChatCompletion
from openai.types.shared import ErrorObject

from pipeline.answer.answers import Answers
from pipeline.chat.chat_format import ChatFormats
from pipeline.config import JobConfig
from pipeline.engine.engine import Engine
from pipeline.engine.fakes.fake import FakeModel
from pipeline.engine.priority import Deadlines
from pipeline.engine.runner import Runner
from pipeline.files.storage import Storage
from pipeline.input.shards import list_shards, plan_shard
from pipeline.job.worker import Identity, Worker
from pipeline.output.export import export
from pipeline.output.fingerprint import Fingerprint
from pipeline.output.manifest import Manifest
from pipeline.respond.about import About
from pipeline.respond.generative_responder import GenerativeResponder
from pipeline.respond.generative_service import GenerativeService

BATCH = Path(__file__).parents[1] / "data/openai_batch.jsonl"
REQUESTS = [json.loads(line) for line in BATCH.read_text().splitlines()]
MODEL = "gpt-4o-mini"
# Hands on tools, and has calls written between <tool_call> and </tool_call>.
TEMPLATE = (
    '{% if tools %}{{ tools | tojson }} <tool_call>\n{"name": ..., "arguments": ...}\n</tool_call>{% endif %}'
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content or m.tool_calls }}<|im_end|>\n"
    "{% endfor %}<|im_start|>assistant\n"
)


def run(folder: Path) -> dict[str, dict[str, Any]]:
    """The result lines by custom_id, of a model that babbles but follows constraints."""
    paths = {"input": {"path": str(BATCH)}, "output": {"path": str(folder / "out")}}
    job = JobConfig.model_validate({"model": {"path": "m", "id": MODEL}, **paths})
    plan = plan_shard(list_shards(job.input.path)[0])
    manifest = Manifest(Storage.at(job.output.path), Fingerprint.of(job, "0" * 64, [plan]))
    identity = Identity(MODEL, manifest.fingerprint.digest)
    manifest.begin()
    worker = Worker(job, identity, manifest, responder(identity))
    assert plan.whole
    worker.process(plan, plan.whole)
    worker.close()
    manifest.finish([plan])
    export(job.output.path, str(folder / "results.jsonl"))
    lines = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    assert [line["custom_id"] for line in lines] == [request["custom_id"] for request in REQUESTS]
    return {line["custom_id"]: line for line in lines}


def responder(identity: Identity) -> GenerativeResponder:
    model = FakeModel(cells=16384, context=4096)
    vocabulary = model.vocabulary
    answers = Answers(
        MODEL, identity.fingerprint, pa.schema([]), vocabulary=vocabulary, formats=ChatFormats(TEMPLATE)
    )
    return GenerativeResponder(
        GenerativeService(
            Runner(Engine(model, slots=8)),
            vocabulary,
            About(MODEL),
            context=4096,
            deadlines=Deadlines(60),
            formats=ChatFormats(TEMPLATE),
        ),
        answers,
    )


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    return run(tmp_path_factory.mktemp("batch"))


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: request["custom_id"])
def test_each_request_has_openais_answer(
    results: dict[str, dict[str, Any]], request_: dict[str, Any]
) -> None:
    line, body = results[request_["custom_id"]], request_["body"]
    assert line["error"] is None
    response = line["response"]
    if request_["custom_id"] == "refused":
        assert response["status_code"] == 400
        assert ErrorObject.model_validate(response["body"]["error"], strict=True).param == "temperature"
        return
    assert response["status_code"] == 200, response
    answer = ChatCompletion.model_validate(response["body"], strict=True)
    assert answer.model == body["model"]
    assert [choice.index for choice in answer.choices] == list(range(body.get("n", 1)))
    for choice in answer.choices:
        check_logprobs(choice.logprobs, body)
        if choice.finish_reason != "length":
            check_text(choice.message, body)


def check_logprobs(logprobs: Any, body: dict[str, Any]) -> None:
    if not body.get("logprobs"):
        assert logprobs is None
        return
    assert logprobs.content
    for entry in logprobs.content:
        assert len(entry.top_logprobs) == body.get("top_logprobs", 0)
        assert all(other.logprob <= 0 for other in (entry, *entry.top_logprobs))


def check_text(message: Any, body: dict[str, Any]) -> None:
    choice = body.get("tool_choice", "auto")
    if choice not in ("none", "auto"):
        (call,) = message.tool_calls
        names = [choice["function"]["name"]] if isinstance(choice, dict) else ["get_weather", "get_time"]
        assert call.function.name in names
        assert "city" in json.loads(call.function.arguments)
    elif body.get("response_format"):
        assert isinstance(json.loads(message.content), dict)
    else:
        assert message.content is not None


def test_labels_are_labels(results: dict[str, dict[str, Any]]) -> None:
    """The fake model can't help but choose one: nothing else is allowed."""
    choice = results["label"]["response"]["body"]["choices"][0]
    assert choice["finish_reason"] == "stop"
    assert json.loads(choice["message"]["content"])["sentiment"] in ("positive", "negative", "mixed")
