"""LiteLLM's calls, unchanged, by its two names for a server that speaks OpenAI's language."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any, Literal

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # It would ask the network for prices.

import litellm
from pydantic import BaseModel

HELLO = [{"role": "user", "content": "hello"}]
CITY = {"city": {"enum": ["Rome", "Oslo"]}}
PARAMETERS = {"type": "object", "properties": CITY, "required": ["city"], "additionalProperties": False}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}
FORCED = {"tools": [WEATHER], "tool_choice": "required", "parallel_tool_calls": False}


class Mood(BaseModel):
    mood: Literal["good", "bad"]


class Calls:
    """kind: what stands before the model's name."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def options(self, where: str = "CHATS", **more: Any) -> dict[str, Any]:
        return {
            "model": f"{self._kind}/local",
            "api_base": f"{os.environ[where]}/v1",
            "api_key": "none",
            "max_tokens": 20,
            "max_retries": 0,
        } | more

    def chat(self, **more: Any) -> Any:
        return litellm.completion(messages=HELLO, **self.options(**more))

    def asks(self) -> None:
        answer = self.chat()
        assert answer.choices[0].message.role == "assistant"
        assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens

    def asks_asynchronously(self) -> None:
        answer = asyncio.run(litellm.acompletion(messages=HELLO, **self.options()))
        assert answer.choices[0].finish_reason in ("stop", "length")

    def streams(self) -> None:
        asked = {"seed": 3, "extra_body": {"ignore_eos": True}}
        chunks = list(self.chat(**asked, stream=True, stream_options={"include_usage": True}))
        whole = litellm.stream_chunk_builder(chunks, messages=HELLO)
        same = self.chat(**asked)
        assert whole.choices[0].message.content == same.choices[0].message.content
        assert whole.usage.completion_tokens == same.usage.completion_tokens == 20

    def gives_choices_and_logprobs(self) -> None:
        answer = self.chat(n=2, logprobs=True, top_logprobs=2)
        assert [choice.index for choice in answer.choices] == [0, 1]
        assert all(len(t.top_logprobs) == 2 for c in answer.choices for t in c.logprobs.content)

    def completes(self) -> None:
        answer = litellm.text_completion(prompt="hello", **self.options())
        assert isinstance(answer.choices[0].text, str)

    def structures(self) -> None:
        answer = self.chat(response_format=Mood)
        assert Mood.model_validate_json(answer.choices[0].message.content).mood in ("good", "bad")

    def embeds(self) -> None:
        options = self.options("VECTORS")
        del options["max_tokens"]
        plain = litellm.embedding(input=["a", "b"], encoding_format="float", **options)
        assert [len(found["embedding"]) for found in plain.data] == [len(plain.data[0]["embedding"])] * 2

    def has_a_batch_answered(self) -> None:
        where = {
            "custom_llm_provider": self._kind,
            "api_base": f"{os.environ['CHATS']}/v1",
            "api_key": "none",
        }
        body = {"model": "local", "messages": HELLO, "max_tokens": 4}
        line = {"custom_id": "one", "method": "POST", "url": "/v1/chat/completions", "body": body}
        content = ("in.jsonl", json.dumps(line).encode())
        file = litellm.create_file(file=content, purpose="batch", **where)
        asked = {"input_file_id": file.id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        batch = litellm.create_batch(**asked, **where)
        while batch.status not in ("completed", "failed", "expired", "cancelled"):
            time.sleep(0.1)
            batch = litellm.retrieve_batch(batch_id=batch.id, **where)
        assert batch.request_counts.completed == 1
        [answer] = litellm.file_content(file_id=batch.output_file_id, **where).text.splitlines()
        assert json.loads(answer)["response"]["body"]["object"] == "chat.completion"
        assert batch.id in [found.id for found in litellm.list_batches(**where).data]

    def hears_errors(self) -> None:
        for wrong, error in (
            ({"model": f"{self._kind}/gpt-5"}, litellm.NotFoundError),
            ({"temperature": 9}, litellm.BadRequestError),
        ):
            try:
                self.chat(**wrong)
            except error:
                continue
            raise AssertionError(f"{wrong} was taken")

    def tries_again(self) -> None:
        assert litellm.completion(messages=HELLO, num_retries=2, **self.options("BUSY")).choices

    def calls_tools(self) -> None:
        asked = {**FORCED, "max_tokens": 200, "seed": 5}
        answer = self.chat(**asked)
        [call] = answer.choices[0].message.tool_calls
        assert call.function.name == "weather" and answer.choices[0].finish_reason == "tool_calls"
        whole = litellm.stream_chunk_builder(list(self.chat(**asked, stream=True)), messages=HELLO)
        [streamed] = whole.choices[0].message.tool_calls
        assert (streamed.function.name, streamed.function.arguments) == ("weather", call.function.arguments)
        told = {"role": "tool", "tool_call_id": call.id, "content": "5 degrees"}
        turns = [*HELLO, answer.choices[0].message.model_dump(), told]
        assert litellm.completion(messages=turns, tools=[WEATHER], **self.options()).choices


def calls_of(kind: str) -> list[Callable[[], None]]:
    made = Calls(kind)
    calls = [
        made.asks,
        made.asks_asynchronously,
        made.streams,
        made.gives_choices_and_logprobs,
        made.completes,
        made.structures,
        made.embeds,
        made.has_a_batch_answered,
        made.hears_errors,
        made.tries_again,
    ]
    return [*calls, *([made.calls_tools] if os.environ.get("TOOLS") else [])]


if __name__ == "__main__":
    calls = [*calls_of("openai"), *calls_of("hosted_vllm")]
    for call in calls:
        call()
    print(f"{len(calls)} calls of litellm {version('litellm')}")
