"""The columns that tell of a row's labels: how likely each was, and how sure the model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from pipeline.answer.logprobs import finite
from pipeline.engine.sampling.deciding import Decision
from pipeline.engine.sampling.labels import log_shares

Record = dict[str, Any]

_EACH = {"path": pa.string(), "label": pa.string(), "logprob": pa.float64(), "probability": pa.float64()}
LABEL_COLUMNS: dict[str, pa.DataType] = {
    "label_logprobs": pa.list_(pa.struct(_EACH)),
    "best_label": pa.string(),
    "best_probability": pa.float64(),
    "runner_up": pa.string(),
    "margin": pa.float64(),
    "entropy": pa.float64(),
    "label_path": pa.string(),
}
"""label_logprobs: of each label, by the path of its property; null where the label is the whole answer.

The others are those of the row's least certain decision: its likeliest label and the next one, by how much
their probabilities differ, the entropy of all of them in nats, and the decision's path.
"""


def label_columns(decisions: Sequence[Decision]) -> Record:
    """What `decisions` say where their labels were all scored; nothing else."""
    scored = [(decision, log_shares(decision.scores)) for decision in decisions if decision.scores]
    if not scored:
        return {}
    decision, logprobs = min(scored, key=lambda pair: _margin(pair[1]))
    best, *others = _falling(logprobs)
    return {
        "label_logprobs": [each for decided in scored for each in _each(*decided)],
        "best_label": decision.names[best],
        "best_probability": math.exp(logprobs[best]),
        "runner_up": decision.names[others[0]] if others else None,
        "margin": _margin(logprobs),
        "entropy": sum(-math.exp(value) * value for value in logprobs if value > -math.inf),
        "label_path": decision.place,
    }


def _each(decision: Decision, logprobs: Sequence[float]) -> list[Record]:
    return [
        {"path": decision.place, "label": name, "logprob": finite(value), "probability": math.exp(value)}
        for name, value in zip(decision.names, logprobs, strict=True)
    ]


def _margin(logprobs: Sequence[float]) -> float:
    best, *others = (math.exp(logprobs[label]) for label in _falling(logprobs))
    return best - (others[0] if others else 0.0)


def _falling(logprobs: Sequence[float]) -> list[int]:
    return sorted(range(len(logprobs)), key=lambda label: -logprobs[label])
