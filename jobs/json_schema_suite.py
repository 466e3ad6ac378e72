"""How much of the JSON Schema test suite holds for response_format.

    pip download --no-binary :all: --no-deps jsonschema && tar xf jsonschema-*.tar.gz
    python jobs/json_schema_suite.py jsonschema-*/json/tests/draft2020-12

A schema that is refused says so in its row's error: its cases don't apply. Of the others, an instance
that is valid must be a possible answer, and one that isn't must be an impossible one. The last line is
JSON. A model writes the keys of an object in the schema's order, and no blanks; so instances are
written without blanks, and an object with its keys in any order that the schema takes.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice, permutations, product
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.constraint.constraints import constraint_of
from pipeline.constraint.guides import Guides
from pipeline.engine.fakes.fake import FakeVocabulary
from pipeline.engine.guide import Guide
from pipeline.errors import RowError
from pipeline.request.json_values import read_json
from pipeline.request.schema import ChatRequest, parse_request

MAX_ORDERS = 1000


@dataclass
class Count:
    """Of one file of the suite. refused: schemas. right, strict (a valid instance that can't be
    answered), loose (an invalid one that can): cases."""

    schemas: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    right: int = 0
    strict: int = 0
    loose: int = 0
    wrong: list[str] = field(default_factory=list)


def guide_of(guides: Guides, schema: Any) -> Guide:
    """As a row of JSON lines would get it."""
    body = {
        "messages": [{"role": "user", "content": "?"}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "case", "schema": schema}},
    }
    request = parse_request("/v1/chat/completions", read_json(json.dumps(body), "body"))
    assert isinstance(request, ChatRequest)
    constraint = constraint_of(request)
    assert constraint
    return guides.guide(constraint)


def takes(guide: Guide, text: str) -> bool:
    """Whether `text`, byte by byte, is a whole answer."""
    guide = guide.copy()
    for byte in text.encode():
        logits = np.zeros(FakeVocabulary.size, np.float32)
        guide.mask(logits)
        if logits[byte] == -np.inf:
            return False
        guide.accept(byte)
    return guide.complete


def orders(value: Any) -> Iterator[Any]:
    """`value` with the keys of its objects in every order."""
    if isinstance(value, dict):
        for keys in permutations(value):
            for items in product(*(list(orders(value[key])) for key in keys)):
                yield dict(zip(keys, items, strict=True))
    elif isinstance(value, list):
        yield from (list(items) for items in product(*(list(orders(item)) for item in value)))
    else:
        yield value


def possible(guide: Guide, value: Any) -> bool:
    texts = (json.dumps(v, ensure_ascii=False, separators=(",", ":")) for v in orders(value))
    return any(takes(guide, text) for text in islice(texts, MAX_ORDERS))


def run_file(path: Path, guides: Guides) -> Count:
    count = Count()
    for group in json.loads(path.read_text(encoding="utf-8")):
        count.schemas += 1
        try:
            guide = guide_of(guides, group["schema"])
        except RowError as error:
            count.refused[_reason(error)] += 1
            continue
        for case in group["tests"]:
            answer = possible(guide, case["data"])
            count.right += answer == case["valid"]
            count.strict += case["valid"] and not answer
            count.loose += answer and not case["valid"]
            if answer != case["valid"]:
                count.wrong.append(f"{group['description']}: {case['description']}")
    return count


def _reason(error: RowError) -> str:
    path = (error.param or "").removeprefix("response_format.json_schema.schema").rpartition(".")[2]
    if path and error.code == "unsupported_parameter":
        return path
    return "unsatisfiable" if "Unsatisfiable" in error.message else path or "not an object"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, help="one draft's folder, such as tests/draft2020-12")
    parser.add_argument("--wrong", action="store_true", help="name every case that went wrong")
    options = parser.parse_args()
    guides = Guides(FakeVocabulary())
    counts = {path.stem: run_file(path, guides) for path in sorted(options.folder.glob("*.json"))}
    print(f"{'file':24} {'schemas':>7} {'refused':>7} {'right':>6} {'strict':>6} {'loose':>6}")
    for name, count in counts.items():
        refused = sum(count.refused.values())
        print(f"{name:24} {count.schemas:7} {refused:7} {count.right:6} {count.strict:6} {count.loose:6}")
        if options.wrong:
            print("".join(f"    {case}\n" for case in count.wrong), end="")
    print(json.dumps(summary(list(counts.values()))))


def summary(counts: list[Count]) -> dict[str, Any]:
    right, strict, loose = (sum(getattr(c, name) for c in counts) for name in ("right", "strict", "loose"))
    cases = right + strict + loose
    refused = sum((count.refused for count in counts), Counter())
    return {
        "schemas": sum(count.schemas for count in counts),
        "refused": dict(refused.most_common()),
        "cases": cases,
        "right": right,
        "strict": strict,
        "loose": loose,
        "share": round(right / max(1, cases), 4),
    }


if __name__ == "__main__":
    main()
