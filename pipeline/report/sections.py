"""The sections of a report: what a survey found, as its template shows it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from pipeline.report import charts
from pipeline.report.formats import cut, moment, number
from pipeline.report.label_sections import gold, labels
from pipeline.report.progress import span
from pipeline.report.survey import Row, Survey
from pipeline.report.vectors import Map

Section = dict[str, Any]

SHOWN_PAUSES = 8
LONGEST = 1500
"""Characters of a text that are shown."""


def sections(survey: Survey, asked: Mapping[tuple[str, int], str]) -> Section:
    """All sections by their name in the template; those that have nothing to show are None.

    asked: what rows asked, as far as that is known, by their shard and number.
    """
    return {
        "timeline": timeline(survey),
        "labels": [found for field, counts in survey.labels.items() if (found := labels(field, counts))],
        "gold": gold(survey.gold) if survey.gold and survey.gold.pairs else None,
        "unmatched": ""
        if survey.gold is None or survey.gold.pairs or survey.vectors.count
        else survey.gold.name,
        "errors": errors(survey),
        "numbers": numbers(survey),
        "vectors": vectors(survey),
        "samples": [
            answer(row, survey.kept, asked.get((row["shard"], row["row"]), "")) for row in survey.samples
        ],
        "slowest": [_slow(seconds, row) for seconds, row in survey.slowest],
    }


def timeline(survey: Survey) -> Section | None:
    line, bins = survey.timeline, survey.timeline.bins
    if line.first is None or line.last - line.first < 2:
        return None
    rows = np.array([found.rows for found in bins], float)
    tokens = np.array([[found.tokens_in for found in bins], [found.tokens_out for found in bins]], float)
    draw = charts.timeline([found.start for found in bins], line.width, rows, tokens)
    pauses = sorted(line.pauses, key=lambda pause: -pause.seconds)[:SHOWN_PAUSES]
    return {
        "note": "By the time at which answers came back, a chunk of rows at once; "
        f"means over {span(line.width)}.",
        "chart": charts.svg(
            "timeline", "rows and tokens a second over time", draw, height=3.6, nrows=2, sharex=True
        ),
        "pauses": [
            {"start": moment(pause.start), "stop": moment(pause.stop), "length": span(pause.seconds)}
            for pause in sorted(pauses, key=lambda pause: pause.start)
        ],
        "more_pauses": len(line.pauses) - len(pauses),
        "retried": f"{survey.retried:,} rows were tried more than once." if survey.retried else "",
    }


def errors(survey: Survey) -> Section | None:
    kinds = survey.failures.kinds
    if not kinds:
        return None
    share = survey.tally.failed / survey.tally.rows
    return {
        "note": f"{survey.tally.failed:,} of {survey.tally.rows:,} rows ({share:.2%}) have an error instead "
        "of an answer. nightherd retry tries them again.",
        "kinds": [
            {
                "code": code,
                "rows": f"{rows:,} rows" if rows > 1 else "1 row",
                "examples": [
                    {
                        "custom_id": failure.custom_id,
                        "place": f"{failure.shard}, row {failure.row:,}",
                        "message": cut(failure.message, 600),
                        "param": failure.param,
                    }
                    for failure in examples
                ],
            }
            for code, rows, examples in kinds
        ],
    }


_NUMBERS = {
    "prompt_tokens": ("Prompt", "tokens"),
    "completion_tokens": ("Answer, tokens", "tokens"),
    "characters": ("Answer, characters", "characters"),
    "seconds": ("Time in the engine", "seconds"),
}


def numbers(survey: Survey) -> Section | None:
    shown = {name: spread for name, spread in survey.numbers.items() if spread.count and spread.most > 0}
    if not shown:
        return None
    found = []
    for name, spread in shown.items():
        title, unit = _NUMBERS[name]
        if spread.least == spread.most:
            found.append(
                {"title": title, "chart": "", "caption": f"{number(spread.least)} {unit} in every row"}
            )
            continue
        marks = [("median", spread.quantile(0.5)), ("p95", spread.quantile(0.95))]
        if marks[0][1] >= 0.8 * marks[1][1]:
            marks = marks[:1]
        draw = charts.histogram(spread.sample, unit, marks)
        least, mean, median, p95, most = (
            number(v)
            for v in (spread.least, spread.mean, spread.quantile(0.5), spread.quantile(0.95), spread.most)
        )
        found.append(
            {
                "title": title,
                "chart": charts.svg(
                    f"numbers-{name}",
                    f"{title}: how many rows have how many {unit}",
                    draw,
                    height=1.9,
                    width=charts.HALF,
                ),
                "caption": f"{least} to {most}; mean {mean}, median {median}, 95 % up to {p95}",
            }
        )
    sampled = any(spread.sampled for spread in shown.values())
    of = "a random sample of them; least, most and means are of all" if sampled else "all of them"
    return {
        "note": f"Of {survey.tally.succeeded:,} rows with an answer; histograms and quantiles from {of}.",
        "charts": found,
        "reasons": _reasons(survey),
    }


def vectors(survey: Survey) -> Section | None:
    found = survey.vectors
    if not found.count:
        return None
    lengths = ", ".join(f"{length:,}" for length, _ in found.dimensions.most_common(4))
    about = "about " if found.estimated else ""
    note = f"{found.count:,} vectors of {lengths} dimensions; "
    note += f"{about}{found.duplicates:,} are equal to an earlier one"
    note += f"; {found.zeros:,} are all zeros" if found.zeros else ""
    place = found.map()
    draw = charts.histogram(found.norms.sample, "L2 norm", [("median", found.norms.quantile(0.5))])
    even = found.norms.most - found.norms.least < 1e-3
    return {
        "note": f"{note}. " + (f"All have the length {found.norms.mean:.4g}." if even else ""),
        "norms": None if even else charts.svg("norms", "how long the vectors are", draw, height=1.8),
        "map": place and _map(place),
        "map_note": place
        and f"{len(place.places):,} vectors on their two principal components, which hold "
        f"{place.explained[0]:.0%} and {place.explained[1]:.0%} of the variance.",
        "pairs": found.nearest(),
    }


def answer(row: Row, kept: Sequence[str], asked: str = "") -> Section:
    """An answered row for people to read."""
    usage, text = row["usage"] or {}, row.get("text")
    facts = [
        f"{usage.get('prompt_tokens', 0):,} tokens in",
        f"{usage.get('completion_tokens', 0):,} out",
        f"ended by {row.get('finish_reason')}",
    ]
    if text is None:
        text = "(no text: a call of a tool; see the column choices)"
    return {
        "custom_id": row["custom_id"],
        "asked": cut(asked, 800),
        "facts": facts + _likeliest(row),
        "kept": [(name, cut(value, 400)) for name in kept if (value := row.get(name)) is not None],
        "text": cut(text, LONGEST),
    }


def _map(found: Map) -> Markup:
    groups = [place.group for place in found.places]
    common = [name for name, _ in Counter(filter(None, groups)).most_common(len(charts.GROUPS))]
    return charts.svg(
        "map", "vectors in two dimensions", charts.scatter(found.points, groups, common), height=4.2
    )


def _reasons(survey: Survey) -> list[Section]:
    total = max(sum(survey.finish_reasons.values()), 1)
    meaning = {
        "stop": "stop: the model ended, or a stop string came",
        "length": "length: cut off by max_tokens or the context",
        "tool_calls": "tool_calls: the model called a tool",
    }
    rows = [(meaning.get(name, name), n) for name, n in survey.finish_reasons.most_common()]
    if survey.incomplete:
        rows.append(("not complete by the row's schema or choice", survey.incomplete))
    return [{"name": name, "rows": f"{n:,}", "share": f"{n / total:.1%}"} for name, n in rows]


def _slow(seconds: float, row: Row) -> Section:
    usage: Mapping[str, int] = row["usage"] or {}
    return {
        "custom_id": row["custom_id"],
        "place": f"{row['shard']}, row {row['row']:,}",
        "seconds": f"{seconds:,.2f}",
        "tokens_in": f"{usage.get('prompt_tokens', 0):,}",
        "tokens_out": f"{usage.get('completion_tokens', 0):,}",
        "reason": row.get("finish_reason") or "",
    }


def _likeliest(row: Row) -> list[str]:
    """The labels of the row's least certain decision: others have probabilities of their own."""
    labels = row.get("label_logprobs") or []
    own = [label for label in labels if label.get("path") == row.get("label_path")] or labels
    found = sorted(own, key=lambda label: -label["probability"])[:3]
    return [f"{cut(label['label'], 30)} {label['probability']:.2f}" for label in found]
