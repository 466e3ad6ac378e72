"""The benchmark's three workloads, as request bodies that nightherd and a server both take."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

Body = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """unit: what is compared, "tokens/s" generated or "rows/s". exact: every row has max_tokens tokens."""

    name: str
    url: str
    unit: str
    bodies: list[Body] = field(repr=False)
    exact: bool = False

    @property
    def embeds(self) -> bool:
        return self.url == "/v1/embeddings"


@dataclass(frozen=True)
class Result:
    """One run. outside: the share of the time that was spent outside the model, where it is known."""

    seconds: float
    rows: int
    prompt_tokens: int
    completion_tokens: int
    outside: float | None = None

    def speed(self, unit: str) -> float:
        return (self.completion_tokens if unit == "tokens/s" else self.rows) / self.seconds


GREEDY: Body = {"temperature": 0, "repeat_penalty": 1.0}
THINGS = "lamp bridge kettle forest letter violin market harbour orchard clock garden ladder mirror".split()
PEOPLE = "baker sailor teacher doctor farmer painter miller tailor nurse pilot clerk weaver".split()
PLACES = "village island station valley castle library desert school lighthouse tavern mill ferry".split()
FEELINGS = "It was cold. Nobody spoke. The rain had stopped. Bells rang. A dog barked.".split(". ")

RULES = [
    "You sort the notes that travellers leave at the desk of a hotel, so that the right person reads them.",
    "Read the note and answer with the name of one desk, in small letters, and with nothing else.",
    "Write rooms if the note is about the bed, the heating, noise, light, or the key of a room.",
    "Write kitchen if the note is about breakfast, dinner, drinks, dishes, or what somebody can't eat.",
    "Write transport if the note is about trains, taxis, bicycles, parking, or the way to a place.",
    "Write money if the note is about a bill, a price, a refund, a card that was refused, or a receipt.",
    "Write lost if the note is about something that was forgotten, found, stolen, or left in a room.",
    "Write thanks if the note praises somebody or something and asks for nothing at all.",
    "If a note is about two desks, take the one that has to act first; if you can't tell, write rooms.",
    "Never write more than the one word; never explain, apologise, greet, or repeat the note.",
    "A note may be rude, or full of spelling errors, or in another language: sort it all the same.",
    "Names, dates and numbers of rooms never matter, so don't let them lead you to a choice.",
]


def tasks(rows: dict[str, int]) -> list[Task]:
    """The tasks named in `rows`, each with so many rows; the same ones every time."""
    makers = {"generation": _generation, "labeling": _labeling, "embeddings": _embeddings}
    return [makers[name](count) for name, count in rows.items()]


def _generation(count: int) -> Task:
    """Short prompts, 64 tokens each."""
    draw = random.Random(1)

    def prompt() -> str:
        return (
            f"The story of the {draw.choice(PEOPLE)} and the {draw.choice(THINGS)} begins in a "
            f"{draw.choice(PLACES)}, where"
        )

    bodies = [{"prompt": prompt(), "max_tokens": 64} | GREEDY for _ in range(count)]
    return Task("generation", "/v1/completions", "tokens/s", bodies, exact=True)


def _labeling(count: int) -> Task:
    """An instruction of about 300 tokens that all rows share, texts of about 60, at most 8 tokens out."""
    draw = random.Random(2)
    system = {"role": "system", "content": "\n".join(RULES)}
    bodies = [
        {"messages": [system, {"role": "user", "content": _text(draw, 3)}], "max_tokens": 8} | GREEDY
        for _ in range(count)
    ]
    return Task("labeling", "/v1/chat/completions", "rows/s", bodies)


def _embeddings(count: int) -> Task:
    """Texts of about 37 tokens."""
    draw = random.Random(3)
    return Task("embeddings", "/v1/embeddings", "rows/s", [{"input": _text(draw, 2)} for _ in range(count)])


def _text(draw: random.Random, sentences: int) -> str:
    return " ".join(
        f"Room {draw.randint(2, 999)}: the {draw.choice(PEOPLE)} left the {draw.choice(THINGS)} "
        f"near the {draw.choice(PLACES)}. {draw.choice(FEELINGS).rstrip('.')}."
        for _ in range(sentences)
    )
