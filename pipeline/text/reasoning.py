"""How models mark their reasoning, and what they wrap their answers in, told from their chat templates."""

from __future__ import annotations

from collections.abc import Iterable

Pair = tuple[str, str]

PAIRS: tuple[Pair, ...] = (
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("<|channel>thought", "<channel|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
    ("<thought>", "</thought>"),
    ("<mm:think>", "</mm:think>"),
    ("◁think▷", "◁/think▷"),
    ("<|think|>", "<|end|>"),
    ("Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]"),
)
"""What stands before and behind the reasoning in an answer; each template has one pair at most."""

WRAPPERS: tuple[Pair, ...] = (
    ("<response>", "</response>"),
    ("<|START_RESPONSE|>", "<|END_RESPONSE|>"),
    ("<|START_TEXT|>", "<|END_TEXT|>"),
    ("<answer>", "</answer>"),
    ("<|content|>", "<|end|>"),
)
"""What some models put around the answer itself."""


def pair_in(source: str, pairs: Iterable[Pair]) -> Pair | None:
    """The pair of marks that a template's source has."""
    return next((pair for pair in pairs if pair[0] in source and pair[1] in source), None)
