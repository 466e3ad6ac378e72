"""From logits to a token, in the order of llama.cpp: bias, penalties, then a choice.

Source of the order and of each formula: llama.cpp, common/sampling.cpp and src/llama-sampler.cpp.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.engine.model import Vocabulary
from pipeline.engine.sampling.choices import Choice, Draw, Exclusion, Greedy, Mirostat
from pipeline.engine.sampling.label_draw import LabelDraw, LabelParams
from pipeline.engine.sampling.logit_edits import Bias, HeldEnds, LogitEdit, Penalties, bias_of
from pipeline.errors import RowError


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """temperature 0 is greedy; top_k 0 keeps all; the seed makes the draws repeatable.

    logit_bias: token ids, each once, and what their logits gain; -100 bans a token.
    min_tokens, ignore_eos: hold `end_tokens` back for that many tokens, or for ever.
    dry_penalty_last_n: how many tokens dry looks back, -1 for all, 0 for none.
    mirostat: 1 or 2; takes the place, as in llama.cpp, of all but logit_bias and temperature.
    labels: how labels are chosen, to which only temperature, seed and logit_bias apply by themselves.
    The other fields are llama.cpp's, by its names.
    """

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    repeat_penalty: float = 1.1
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int = 0
    logit_bias: tuple[tuple[int, float], ...] = ()
    min_tokens: int = 0
    ignore_eos: bool = False
    end_tokens: tuple[int, ...] = ()
    typical_p: float = 1.0
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_penalty_last_n: int = -1
    dry_sequence_breakers: tuple[str, ...] = ("\n", ":", '"', "*")
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    mirostat: int = 0
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1
    labels: LabelParams = field(default_factory=LabelParams)


class Sampler(Protocol):
    """One row's tokens, chosen one after the other. Different rows' may be used in different threads."""

    @property
    def labels(self) -> LabelDraw:
        """How the row's labels are chosen."""

    @property
    def heavy(self) -> bool:
        """Whether `sample` weighs the whole vocabulary: milliseconds, nearly all outside Python's lock."""

    def sample(self, logits: NDArray[np.float32]) -> int:
        """The next token, from logits of shape [vocabulary], which it may write to; nothing is remembered.

        A logit of -inf means that the token is not allowed: it is never chosen. Raises RowError
        where no token is left."""

    def again(self, logits: NDArray[np.float32]) -> int:
        """One more token for the same place, from the logits that `sample` has written to."""

    def accept(self, token: int) -> None:
        """`token`, sampled or forced, is part of the text now."""


class SamplerChain:
    """Edits of the logits, one after the other, and a choice."""

    def __init__(self, edits: Sequence[LogitEdit], choice: Choice, labels: LabelDraw) -> None:
        self._edits = edits
        self._choice = choice
        self.labels = labels

    @property
    def heavy(self) -> bool:
        return self._choice.heavy

    def sample(self, logits: NDArray[np.float32]) -> int:
        for edit in self._edits:
            edit.apply(logits)
        return self._choice.choose(logits)

    def again(self, logits: NDArray[np.float32]) -> int:
        self._choice.again()
        return self._choice.choose(logits)

    def accept(self, token: int) -> None:
        for edit in self._edits:
            edit.accept(token)
        self._choice.accept(token)


def new_sampler(params: SamplingParams, prompt: list[int], vocabulary: Vocabulary) -> Sampler:
    """A sampler at the end of `prompt`; the same arguments give one that repeats its draws.

    Raises RowError where a token of logit_bias isn't one, or the model can't do what `params` ask."""
    return SamplerChain(list(_edits(params, prompt, vocabulary)), _choice(params), _labels(params))


def _edits(params: SamplingParams, prompt: list[int], vocabulary: Vocabulary) -> Iterator[LogitEdit]:
    if params.logit_bias:
        _check_tokens(params.logit_bias, vocabulary)
        yield Bias(params.logit_bias)
    if params.end_tokens and (params.ignore_eos or params.min_tokens):
        yield HeldEnds(params.end_tokens, inf if params.ignore_eos else params.min_tokens)
    if params.mirostat:
        return
    if params.repeat_penalty != 1 or params.presence_penalty or params.frequency_penalty:
        yield Penalties(
            prompt,
            repeat=params.repeat_penalty,
            presence=params.presence_penalty,
            frequency=params.frequency_penalty,
        )
    if params.dry_multiplier and params.dry_base >= 1 and params.dry_penalty_last_n:
        yield vocabulary.dry_penalty(
            prompt,
            multiplier=params.dry_multiplier,
            base=params.dry_base,
            allowed_length=params.dry_allowed_length,
            last_n=params.dry_penalty_last_n,
            breakers=params.dry_sequence_breakers,
        )


def _check_tokens(biases: Sequence[tuple[int, float]], vocabulary: Vocabulary) -> None:
    for token, _ in biases:
        if not 0 <= token < vocabulary.size:
            raise RowError(
                "invalid_request",
                f"logit_bias: the model has no token {token}, only 0 to {vocabulary.size - 1}",
                "logit_bias",
            )


def _choice(params: SamplingParams) -> Choice:
    # Only these two cuts may take the likeliest token away.
    spared = bool(params.mirostat) or (params.typical_p >= 1 and not params.xtc_probability)
    if params.temperature == 0 and spared:
        return Greedy()
    if params.mirostat:
        return Mirostat(
            params.mirostat,
            tau=params.mirostat_tau,
            eta=params.mirostat_eta,
            temperature=params.temperature,
            seed=params.seed,
        )
    return Draw(
        top_k=params.top_k,
        typical_p=params.typical_p,
        top_p=params.top_p,
        min_p=params.min_p,
        exclusion=_exclusion(params),
        temperature=params.temperature,
        seed=params.seed,
    )


def _labels(params: SamplingParams) -> LabelDraw:
    bias = tuple((token, bias_of(value)) for token, value in params.logit_bias)
    return LabelDraw(replace(params.labels, temperature=params.temperature, seed=params.seed, bias=bias))


def _exclusion(params: SamplingParams) -> Exclusion | None:
    if params.xtc_probability <= 0:
        return None
    return Exclusion(params.xtc_probability, params.xtc_threshold, params.seed)
