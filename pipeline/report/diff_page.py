"""`nightherd diff --html`: the page that shows what changed between two outputs."""

from __future__ import annotations

from collections import Counter
from difflib import SequenceMatcher
from typing import Any

import numpy as np
from markupsafe import Markup, escape

from pipeline.report import charts
from pipeline.report.comparison import Change, Comparison
from pipeline.report.diff import Diff, costs
from pipeline.report.formats import cut
from pipeline.report.label_sections import MOST_CONFUSED
from pipeline.report.page import render, write_page

_LONGEST = 1200
_MOST_CHANGES = 10


def write_diff(result: Diff, target: str) -> str:
    """Writes the page; its path or URL. Raises ConfigError for a wrong target, or without matplotlib."""
    found = result.found
    return write_page(
        render(
            "diff.html",
            {
                "urls": [side.manifest.output.url for side in (result.before, result.after)],
                "names": [_name(side.record) for side in (result.before, result.after)],
                "unfinished": result.unfinished,
                "settings": [cut(line, 600) for line in result.settings],
                "only": _only(result),
                "tiles": _tiles(found),
                "errors": _errors(found),
                "labels": _labels(found),
                "cosines": _cosines(found),
                "costs": [tuple(line.split(": ", 1)) for line in costs(found)],
                "examples": [_example(change) for change in found.examples],
            },
        ),
        target,
    )


def marked(before: str, after: str) -> tuple[Markup, Markup]:
    """Both texts as HTML, with the words that only one has marked."""
    one, other = before.split(" "), after.split(" ")
    left, right = [], []
    for kind, a, b, c, d in SequenceMatcher(None, one, other, autojunk=False).get_opcodes():
        old, new = escape(" ".join(one[a:b])), escape(" ".join(other[c:d]))
        same = kind == "equal"
        left += [old if same else Markup("<del>{}</del>").format(old)] if b > a else []
        right += [new if same else Markup("<ins>{}</ins>").format(new)] if d > c else []
    return Markup(" ").join(left), Markup(" ").join(right)


def _name(record: Any) -> str:
    return str((record.get("about") or {}).get("name", "nightherd"))


def _only(result: Diff) -> list[str]:
    lines = []
    for which, rows, shards in (
        ("first", result.rows_before, result.only_before),
        ("second", result.rows_after, result.only_after),
    ):
        lines += [f"{rows:,} rows are only in the {which} output."] if rows else []
        lines += [f"Only the {which} output has {', '.join(shards[:8])}."] if shards else []
    return lines


def _tiles(found: Comparison) -> list[dict[str, str]]:
    agreement = "none" if found.agreement is None else f"{found.agreement:.1%}"
    tiles = [
        (agreement, "of rows with two answers agree", ""),
        (f"{found.same:,}", "answers are the same", ""),
        (f"{found.changed:,}", "answers changed", ""),
        (f"{found.lost:,}", "rows lost their answer", "bad" if found.lost else ""),
        (f"{found.won:,}", "rows got an answer", ""),
    ]
    return [{"value": value, "label": label, "class": style} for value, label, style in tiles]


def _errors(found: Comparison) -> list[tuple[str, str, str]]:
    before, after = found.errors
    codes = sorted(before.keys() | after.keys(), key=lambda code: (-before[code] - after[code], code))
    return [(code, f"{before[code]:,}", f"{after[code]:,}") for code in codes]


def _labels(found: Comparison) -> dict[str, Any] | None:
    pairs = found.labels
    if not pairs:
        return None
    rows = Counter[str]()
    for (one, other), count in pairs.items():
        rows[one] += count
        rows[other] += count
    names = [name for name, _ in rows.most_common(MOST_CONFUSED)]
    counts = np.array([[pairs[one, other] for other in names] for one in names])
    draw = charts.confusion(names, counts, ("before", "after"))
    height = 1.2 + 0.3 * len(names)
    chart = charts.svg(
        "labels", "rows by their label before and after", draw, height=height, width=charts.HALF
    )
    return {
        "chart": chart,
        "note": f"The {len(names)} commonest of {len(rows)} labels." if len(rows) > len(names) else "",
        "changes": [
            {"before": cut(one, 60), "after": cut(other, 60), "rows": f"{count:,}"}
            for one, other, count in found.label_changes[:_MOST_CHANGES]
        ],
        "more": max(0, len(found.label_changes) - _MOST_CHANGES),
    }


def _cosines(found: Comparison) -> Markup | None:
    if not found.cosines.count:
        return None
    draw = charts.histogram(found.cosines.sample, "cosine", [("median", found.cosines.quantile(0.5))])
    return charts.svg("cosines", "rows by the cosine of their two vectors", draw, height=2.2)


def _example(change: Change) -> dict[str, Any]:
    before, after = marked(cut(change.before, _LONGEST), cut(change.after, _LONGEST))
    return {
        "custom_id": change.custom_id,
        "shard": change.shard,
        "kept": [(name, cut(value, 400)) for name, value in change.kept.items() if value is not None],
        "before": before,
        "after": after,
        "probabilities": ["" if share is None else f"{share:.2f}" for share in change.probability],
    }
