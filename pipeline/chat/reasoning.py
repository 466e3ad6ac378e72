"""How models mark their reasoning, and what they wrap their answers in, told from their chat templates."""

from __future__ import annotations

Pair = tuple[str, str]

PAIRS: tuple[Pair, ...] = (
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
    # Last: other templates name it as something not to write.
    ("<think>", "</think>"),
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


def reasoning_marks(source: str) -> Pair | None:
    """The marks of the reasoning. A template need not name the second one, where the prompt has the first."""
    return next((pair for pair in PAIRS if pair[0] in source), None)


def wrapper_marks(source: str) -> Pair | None:
    """The marks around the answer."""
    return next((pair for pair in WRAPPERS if pair[0] in source and pair[1] in source), None)
