"""Writes the sample shards beside this file: `python jobs/samples/make.py`.

demo/chats.parquet        bare chats, a `messages` list per row
demo/completions.parquet  bare completions, a `prompt` and a `seed` per row
demo/labels.parquet       lines in the shape of OpenAI's Batch API
reviews.parquet           plain data, for jobs/label.yaml and jobs/embed.yaml

Three rows of the demo are wrong on purpose, so that its output shows what a row error looks like.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).parent

QUESTIONS = [
    "What is the capital of Finland?",
    "Why is the sky blue? Answer in two sentences.",
    "Give three tips for sleeping well.",
    "What is the difference between a lake and a river?",
    "Name five vegetables that grow well in a cold climate.",
    "Explain to a child what a volcano is.",
    "Write a short thank-you note to a neighbour who watered my plants.",
    "How do bees make honey?",
    "What does a lighthouse do?",
    "Describe the taste of a lemon in one sentence.",
    "What should I pack for a day of hiking?",
    "Why do leaves change colour in autumn?",
    "Suggest a name for a small bakery, and say why it fits.",
    "What is a prime number? Give two examples.",
    "Summarise the story of Robinson Crusoe in two sentences.",
    "How does a bicycle stay upright?",
]

BEGINNINGS = [
    "The night train left the station at ten, and",
    "Recipe for pancakes. Ingredients: flour, milk,",
    "The three largest oceans of the Earth are",
    "Dear Sir or Madam, I am writing to ask",
    "Once upon a time, in a forest where nobody lived,",
    "The history of bread begins with",
    "To change the tyre of a bicycle, first",
    "Water boils at 100 degrees Celsius, but on a mountain",
]

REVIEWS = [
    ("kettle", "Boils fast, looks good, and the handle stays cool. Very happy with it."),
    ("kettle", "It broke after two days and nobody answered my letter."),
    ("lamp", "A warm light and a solid foot. My favourite purchase this year."),
    ("lamp", "The switch was loose from the first day and the glass came cracked."),
    ("tent", "Stayed dry through a night of heavy rain. Excellent tent."),
    ("tent", "A pole snapped on the first evening. We drove home at midnight."),
    ("backpack", "Comfortable straps, plenty of pockets, and light. I love it."),
    ("backpack", "The zip jammed within a week and the seam is coming apart."),
    ("headphones", "Clear sound and they sit well even after hours."),
    ("headphones", "Constant crackling in the left ear. A waste of money."),
    ("blender", "Crushes ice without trouble and is easy to clean. Great value."),
    ("blender", "Loud, leaks at the bottom, and smells of burnt plastic."),
    ("novel", "I read it in one night. Wonderful characters and a perfect ending."),
    ("novel", "Dull from start to finish. I gave up after a hundred pages."),
    ("umbrella", "It turned inside out in the first wind and would not close again."),
    ("umbrella", "Small enough for my bag, and strong in a storm. Recommended."),
    ("chair", "My back has never felt better. Worth every penny."),
    ("chair", "One leg is shorter than the others, and the screws were missing."),
    ("phone case", "Fits perfectly and saved my phone from a bad fall."),
    ("phone case", "The colour came off on my hands after a few days. Awful."),
    ("coffee", "Rich, smooth, and freshly roasted. The best I have had at home."),
    ("coffee", "Stale and bitter. It went straight into the bin."),
    ("boots", "Warm, waterproof, and comfortable from the first step."),
    ("boots", "Soaked through in a puddle, and the sole fell off in March."),
    ("keyboard", "Lovely keys, quiet, and the battery lasts for months."),
    ("keyboard", "Three keys stopped working in a week. Very disappointed."),
    ("puzzle", "A beautiful picture, and every piece fits. The family enjoyed it."),
    ("puzzle", "Two pieces were missing, which we found out after six hours."),
    ("pan", "Nothing sticks, it heats evenly, and it is light. Fantastic pan."),
    ("pan", "The coating peeled off into my eggs. Horrible."),
    ("watch", "Elegant and exact. I get compliments on it every day."),
    ("watch", "It loses ten minutes a day, and the strap broke. Terrible."),
]

LABEL_INSTRUCTION = (
    "You read what customers of a shop write about the things that they bought. "
    "Rate each review as good or bad. Answer with one word."
)
EXAMPLES = [
    ("It stopped working and support was rude.", "bad"),
    ("Great quality, I would buy it again.", "good"),
    ("Arrived broken. I want my money back.", "bad"),
    ("Perfect. Exactly what I wanted.", "good"),
    ("The motor smells burnt and it is too loud.", "bad"),
    ("My daughter loves it and uses it daily.", "good"),
]


def chats() -> pa.Table:
    """Bare requests: every column but `topic` is a field of the request; a null counts as absent."""
    rows = [_chat(f"question-{n:02}", question) for n, question in enumerate(QUESTIONS, 1)]
    rows.append(_chat("bad-temperature", "Is this row well?", temperature=9.0))
    rows.append(_chat("bad-role", "Is this one?", role="teacher"))
    return pa.Table.from_pylist(rows)


def _chat(
    name: str, question: str, *, role: str = "user", temperature: float | None = None
) -> dict[str, Any]:
    return {
        "id": name,
        "messages": [{"role": role, "content": question}],
        "max_tokens": 80,
        "temperature": temperature,
    }


def completions() -> pa.Table:
    """Each beginning is continued twice, with two seeds."""
    return pa.Table.from_pylist(
        [
            {"id": f"story-{n:02}-{seed}", "prompt": text, "max_tokens": 48, "temperature": 0.8, "seed": seed}
            for n, text in enumerate(BEGINNINGS, 1)
            for seed in (1, 2)
        ]
    )


def labels() -> pa.Table:
    """Batch lines: an instruction and six solved examples, then the review to be rated."""
    lines = [_line(f"review-{n:02}", _label_body(text)) for n, (_, text) in enumerate(REVIEWS, 1)]
    lines.append(_line("bad-model", _label_body("A review.") | {"model": "some-other-model"}))
    return pa.Table.from_pylist(lines)


def _line(name: str, body: dict[str, Any]) -> dict[str, str]:
    return {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": json.dumps(body)}


def _label_body(text: str) -> dict[str, Any]:
    messages = [{"role": "system", "content": LABEL_INSTRUCTION}]
    for review, label in EXAMPLES:
        messages += [{"role": "user", "content": review}, {"role": "assistant", "content": label}]
    messages.append({"role": "user", "content": text})
    return {"model": "local", "messages": messages, "max_tokens": 2, "temperature": 0, "repeat_penalty": 1.0}


def reviews() -> pa.Table:
    """Data that knows nothing of requests: a name, a product, a review."""
    return pa.Table.from_pylist(
        [
            {"id": f"review-{n:02}", "product": product, "review": text}
            for n, (product, text) in enumerate(REVIEWS, 1)
        ]
    )


def main() -> None:
    (HERE / "demo").mkdir(exist_ok=True)
    for table, name in [
        (chats(), "demo/chats.parquet"),
        (completions(), "demo/completions.parquet"),
        (labels(), "demo/labels.parquet"),
        (reviews(), "reviews.parquet"),
    ]:
        pq.write_table(table, HERE / name, compression="zstd")
        print(f"{name}: {table.num_rows} rows")


if __name__ == "__main__":
    main()
