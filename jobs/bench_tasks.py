"""The benchmark's workloads, as request bodies that nightherd and a server both take."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from bench_schemas import LABEL, PLAIN, PLAIN_GRAMMAR, RECORD, response_format
from bench_texts import ENUM_RULES, OBJECT_RULES, QUESTIONS, RULES, document, note, scraps, story

Body = dict[str, Any]
QUESTIONS_EACH = 4


@dataclass(frozen=True)
class Task:
    """unit: what is compared, "tokens/s" generated or "rows/s". context: tokens that a row needs at most.

    grammar: what llama-server takes in the place of guided_regex, which it ignores.
    """

    name: str
    url: str
    unit: str
    bodies: list[Body] = field(repr=False)
    context: int = 640
    grammar: str | None = None

    @property
    def embeds(self) -> bool:
        return self.url == "/v1/embeddings"

    def first(self, rows: int) -> Task:
        """Its first rows."""
        return replace(self, bodies=self.bodies[:rows])

    def free(self) -> Task:
        """The same rows, as long, with nothing that constrains their answers."""
        bodies = [without(body, "guided_regex") | {"ignore_eos": True} for body in self.bodies]
        return replace(self, bodies=bodies, grammar=None)


@dataclass(frozen=True)
class Result:
    """One run. outside: the share of the time that was spent outside the model, where it is known.

    agreement: the share of answers that keep to their schema, where there is one.
    """

    seconds: float
    rows: int
    prompt_tokens: int
    completion_tokens: int
    outside: float | None = None
    agreement: float | None = None

    def speed(self, unit: str) -> float:
        return (self.completion_tokens if unit == "tokens/s" else self.rows) / self.seconds


GREEDY: Body = {"temperature": 0, "repeat_penalty": 1.0}


def make_task(name: str, rows: int, part: int = 0) -> Task:
    """The task's table with so many rows: the same one every time.

    part: another number gives other rows of the same kind, so that no run can use an earlier run's work.
    """
    return _MAKERS[name](random.Random(f"{name} {part}"), rows)


def without(body: Body, field: str) -> Body:
    return {name: value for name, value in body.items() if name != field}


def _generation(draw: random.Random, rows: int) -> Task:
    """Short prompts, 64 tokens each."""
    bodies = [_story(text) for text in _distinct(story, draw, rows)]
    return Task("generation", "/v1/completions", "tokens/s", bodies)


def _constrained(draw: random.Random, rows: int) -> Task:
    """As generation, under a regular expression that excludes few tokens, and forces none."""
    form = {"guided_regex": PLAIN}
    bodies = [without(_story(text), "ignore_eos") | form for text in _distinct(story, draw, rows)]
    return Task("constrained", "/v1/completions", "tokens/s", bodies, grammar=PLAIN_GRAMMAR)


def _labeling(draw: random.Random, rows: int) -> Task:
    """An instruction of about 300 tokens that all rows share, texts of about 60, at most 8 tokens out."""
    return _chats("labeling", [_chat(scraps(draw, 3), 8, RULES) for _ in range(rows)])


def _enum(draw: random.Random, rows: int) -> Task:
    """As labeling, texts of 40 to 400 characters, the label one of six in a JSON object."""
    form = {"response_format": response_format("label", LABEL)}
    return _chats("enum", [_chat(text, 48, ENUM_RULES) | form for text in _distinct(note, draw, rows)])


def _object(draw: random.Random, rows: int) -> Task:
    """As enum, with five fields: two enums, an integer, a boolean, a string of at most 40 characters."""
    form = {"response_format": response_format("record", RECORD)}
    return _chats("object", [_chat(text, 128, OBJECT_RULES) | form for text in _distinct(note, draw, rows)])


def _documents(draw: random.Random, rows: int) -> Task:
    """Four questions on each document of about 600 tokens, shuffled; at most 8 tokens out."""
    bodies: list[Body] = []
    while len(bodies) < rows:
        text = document(draw)
        questions = draw.sample(QUESTIONS, min(QUESTIONS_EACH, rows - len(bodies)))
        bodies += [_chat(f"{text}\n\n{question} Answer in a word.", 8) for question in questions]
    draw.shuffle(bodies)
    return replace(_chats("documents", bodies), context=768)


def _duplicates(draw: random.Random, rows: int) -> Task:
    """As labeling, every row twice, shuffled."""
    bodies = [_chat(scraps(draw, 3), 8, RULES) for _ in range((rows + 1) // 2)]
    bodies = (bodies * 2)[:rows]
    draw.shuffle(bodies)
    return _chats("duplicates", bodies)


def _embeddings(draw: random.Random, rows: int) -> Task:
    """Texts of about 37 tokens."""
    return Task("embeddings", "/v1/embeddings", "rows/s", [{"input": scraps(draw, 2)} for _ in range(rows)])


def _distinct(make: Callable[[random.Random], str], draw: random.Random, count: int) -> list[str]:
    """Texts of which no two are equal: an equal row would cost nothing."""
    texts: dict[str, None] = {}
    while len(texts) < count:
        texts[make(draw)] = None
    return list(texts)


def _story(prompt: str) -> Body:
    return {"prompt": prompt, "max_tokens": 64, "ignore_eos": True} | GREEDY


def _chat(text: str, max_tokens: int, rules: list[str] | None = None) -> Body:
    messages = [{"role": "user", "content": text}]
    if rules:
        messages.insert(0, {"role": "system", "content": "\n".join(rules)})
    return {"messages": messages, "max_tokens": max_tokens} | GREEDY


def _chats(name: str, bodies: list[Body]) -> Task:
    return Task(name, "/v1/chat/completions", "rows/s", bodies)


_MAKERS = {
    "generation": _generation,
    "labeling": _labeling,
    "embeddings": _embeddings,
    "enum": _enum,
    "object": _object,
    "documents": _documents,
    "duplicates": _duplicates,
    "constrained": _constrained,
}
