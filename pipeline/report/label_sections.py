"""The sections of a report on labels: how often each was given, and how right they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from pipeline.report import charts
from pipeline.report.formats import cut
from pipeline.report.gold import Gold
from pipeline.report.label_counts import LabelCounts

Section = dict[str, Any]

SHOWN_LABELS = 24
MOST_CONFUSED = 12


def labels(field: str, found: LabelCounts) -> Section | None:
    """field: of the answer; "" for all of it."""
    counts = found.counts
    if not counts:
        return None
    shown = list(counts.items())[:SHOWN_LABELS]
    sure = np.array([count.sure for _, count in shown]) if found.scored else None
    draw = charts.labels([name for name, _ in shown], [count.rows for _, count in shown], sure)
    rest, rows = len(counts) - len(shown), sum(count.rows for count in counts.values())
    means = [count.mean_probability or 0.0 for _, count in shown]
    surest = f" Mean probability: {min(means):.2f} to {max(means):.2f} by label." if sure is not None else ""
    return {
        "note": f"{len(counts):,} different answers over {rows:,} rows.{surest}",
        "field": field,
        "chart": charts.svg(
            f"labels-{field}",
            "rows of each label",
            draw,
            height=0.55 + 0.26 * len(shown),
            ncols=1 if sure is None else 2,
        ),
        "more": f"and {rest} rarer ones" if rest else "",
    }


def gold(found: Gold) -> Section:
    low, high = found.interval
    left_out = [f"{found.missing:,} rows have no gold label"] if found.missing else []
    left_out += [f"{found.unanswered:,} have one, but no answer"] if found.unanswered else []
    scores = found.scores
    names = [score.label for score in scores[:MOST_CONFUSED]]
    return {
        "tiles": [
            {"value": f"{found.accuracy:.1%}", "label": f"accuracy (95 %: {low:.1%} to {high:.1%})"},
            {"value": f"{found.right:,}", "label": f"right of {found.judged:,} rows"},
            *_calibration(found),
        ],
        "name": found.name,
        "note": (
            f"Left out: {' and '.join(left_out)}."
            if left_out
            else "Every row has a gold label and an answer."
        ),
        "warning": ""
        if any(score.gold and score.given for score in scores)
        else f"No answer is one of the labels in {found.name}: is it the column that holds them?",
        "confusion": _confusion(found, names) if len(names) > 1 else None,
        "confusion_note": f"The {len(names)} commonest of {len(scores)} labels."
        if len(scores) > len(names)
        else "",
        "reliability": _reliability(found),
        "reliability_note": "Each point is a tenth of the scale; on the dashed line probabilities are true.",
        "scores": [
            {
                "label": score.label,
                "gold": score.gold,
                "given": score.given,
                "precision": f"{score.precision:.1%}" if score.given else "",
                "recall": f"{score.recall:.1%}" if score.gold else "",
                "f1": f"{score.f1:.2f}",
            }
            for score in scores[:SHOWN_LABELS]
        ],
        "more": f"and {len(scores) - SHOWN_LABELS} rarer ones" if len(scores) > SHOWN_LABELS else "",
        "misses": [
            {
                "custom_id": miss.custom_id,
                "kept": ", ".join(f"{name}: {cut(value, 160)}" for name, value in miss.kept.items()),
                "gold": cut(miss.gold, 80),
                "label": cut(miss.label, 200),
                "probability": "" if miss.probability is None else f"{miss.probability:.2f}",
            }
            for miss in found.misses
        ],
    }


def _calibration(found: Gold) -> list[Section]:
    if found.calibration_error is None or found.brier is None:
        return []
    return [
        {"value": f"{found.calibration_error:.3f}", "label": "expected calibration error"},
        {"value": f"{found.brier:.3f}", "label": "Brier score of the answer's probability"},
    ]


def _confusion(found: Gold, names: Sequence[str]) -> Markup:
    counts = np.array([[found.pairs[known, given] for given in names] for known in names])
    draw, height = charts.confusion(names, counts), 1.2 + 0.3 * len(names)
    return charts.svg("confusion", "rows by gold label and answer", draw, height=height, width=charts.HALF)


def _reliability(found: Gold) -> Markup | None:
    bins = found.reliability
    if not bins:
        return None
    draw = charts.reliability(
        [b.probability for b in bins], [b.accuracy for b in bins], [b.rows for b in bins]
    )
    title = "share of right answers by their probability"
    return charts.svg(
        "reliability", title, draw, height=3.6, width=charts.HALF, nrows=2, sharex=True, height_ratios=(4, 1)
    )
