"""The calls of langchain-openai, unchanged."""

from __future__ import annotations

import asyncio
import os
from importlib.metadata import version
from typing import Any, Literal

import openai
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings
from pydantic import BaseModel


class Mood(BaseModel):
    """How it was said."""

    mood: Literal["good", "bad"]


@tool
def weather(city: Literal["Rome", "Oslo"]) -> str:
    """The weather of a city."""
    return f"5 degrees in {city}"


def chat(where: str = "CHATS", **options: Any) -> ChatOpenAI:
    settings = {"model": "local", "api_key": "none", "max_retries": 0, "max_tokens": 20} | options
    return ChatOpenAI(base_url=f"{os.environ[where]}/v1", **settings)


def asks() -> None:
    answer = chat().invoke("hello")
    assert isinstance(answer, AIMessage)
    assert answer.usage_metadata["total_tokens"] > 0
    assert answer.response_metadata["finish_reason"] in ("stop", "length")


def streams() -> None:
    asked = chat(seed=3, stream_usage=True, extra_body={"ignore_eos": True})
    parts = list(asked.stream("hello"))
    assert len(parts) > 3
    whole = sum(parts[1:], parts[0])
    assert whole.content == asked.invoke("hello").content
    assert whole.usage_metadata["output_tokens"] == 20


def streams_asynchronously() -> None:
    async def read() -> list[Any]:
        return [part async for part in chat().astream("hello")]

    assert asyncio.run(read())


def asks_for_several() -> None:
    answers = chat().batch(["hello", "good day", "good night"])
    assert len(answers) == 3
    assert len(chat(n=2).generate([[HumanMessage("hello")]]).generations[0]) == 2


def reads_logprobs() -> None:
    answer = chat(logprobs=True, top_logprobs=2).invoke("hello")
    assert all(len(token["top_logprobs"]) == 2 for token in answer.response_metadata["logprobs"]["content"])


def completes() -> None:
    plain = OpenAI(
        base_url=f"{os.environ['CHATS']}/v1", api_key="none", model="local", max_tokens=5, max_retries=0
    )
    assert isinstance(plain.invoke("hello"), str)
    assert isinstance("".join(plain.stream("hello")), str)


def structures() -> None:
    for options in ({"method": "json_schema"}, {"method": "json_schema", "strict": True}):
        assert chat(max_tokens=120).with_structured_output(Mood, **options).invoke("hello").mood in (
            "good",
            "bad",
        )
    *_, last = chat(max_tokens=120).with_structured_output(Mood, method="json_schema").stream("hello")
    assert last.mood in ("good", "bad")


def calls_tools() -> None:
    bound = chat(max_tokens=120).bind_tools(
        [weather], tool_choice="any", strict=True, parallel_tool_calls=False
    )
    answer = bound.invoke("hello")
    assert answer.tool_calls[0]["name"] == "weather" and answer.tool_calls[0]["args"]["city"] in (
        "Rome",
        "Oslo",
    )
    result = weather.invoke(answer.tool_calls[0])
    assert isinstance(result, ToolMessage)
    assert isinstance(chat().bind_tools([weather]).invoke([HumanMessage("hello"), answer, result]), AIMessage)
    parts = list(bound.stream("hello"))
    whole = sum(parts[1:], parts[0])
    assert [call["name"] for call in whole.tool_calls] == ["weather"]
    mood = (
        chat(max_tokens=120)
        .with_structured_output(Mood, method="function_calling", strict=True)
        .invoke("hello")
    )
    assert mood.mood in ("good", "bad")


def embeds() -> None:
    made = OpenAIEmbeddings(
        base_url=f"{os.environ['VECTORS']}/v1",
        api_key="none",
        model="local",
        max_retries=0,
        # Otherwise it sends token ids of another tokeniser (docs/serve.md).
        check_embedding_ctx_length=False,
    )
    first, second = made.embed_documents(["a", "b"])
    assert len(first) == len(second) > 0
    assert made.embed_query("a") == first


def hears_errors() -> None:
    for wrong in ({"model": "gpt-5"}, {"temperature": 9}):
        for ask in (lambda made: made.invoke("hello"), lambda made: list(made.stream("hello"))):
            try:
                ask(chat(**wrong))
            except (openai.NotFoundError, openai.BadRequestError) as error:
                assert error.param == next(iter(wrong))
            else:
                raise AssertionError(f"{wrong} was taken")


def tries_again() -> None:
    assert isinstance(chat("BUSY", max_retries=2).invoke("hello"), AIMessage)


CALLS = [
    asks,
    streams,
    streams_asynchronously,
    asks_for_several,
    reads_logprobs,
    completes,
    structures,
    embeds,
    hears_errors,
    tries_again,
]

if __name__ == "__main__":
    made = [*CALLS, *([calls_tools] if os.environ.get("TOOLS") else [])]
    for call in made:
        call()
    print(f"{len(made)} calls of langchain-openai {version('langchain-openai')}")
