"""llama.cpp's dry sampler, which needs the words of its vocabulary to know where a repetition breaks."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import llama_cpp as lib
import numpy as np
from numpy.typing import NDArray

_ENTRY = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])  # llama_token_data
_SETTINGS = 32  # combinations of settings that are kept ready


class DryPenalties:
    """Dry samplers over one vocabulary. Safe to use from several threads."""

    def __init__(self, vocab: Any, context: int) -> None:
        """vocab: a `llama_vocab` that outlives this object. context: the most tokens of a row."""
        self._vocab = vocab
        self._context = context
        # The breakers are looked for in every word of the vocabulary, once per setting: copies are cheap.
        self._prototype = lru_cache(_SETTINGS)(self._new_prototype)

    def penalty(
        self,
        prompt: Sequence[int],
        *,
        multiplier: float,
        base: float,
        allowed_length: int,
        last_n: int,
        breakers: tuple[str, ...],
    ) -> DryPenalty:
        """A dry sampler that has seen `prompt`. last_n: -1 for the whole text."""
        window = min(last_n, self._context) if last_n >= 0 else self._context
        return DryPenalty(self._prototype(multiplier, base, allowed_length, window, breakers), prompt)

    def _new_prototype(
        self, multiplier: float, base: float, allowed_length: int, window: int, breakers: tuple[str, ...]
    ) -> _Handle:
        texts = (ctypes.c_char_p * len(breakers))(*(text.encode("utf-8", "replace") for text in breakers))
        sampler = lib.llama_sampler_init_dry(
            self._vocab, multiplier, base, allowed_length, window, texts, len(breakers)
        )
        return _Handle(sampler)


class _Handle:
    """Owns a `llama_sampler`."""

    def __init__(self, sampler: Any) -> None:
        self.sampler = sampler

    def __del__(self) -> None:
        lib.llama_sampler_free(self.sampler)


class DryPenalty:
    """`LogitEdit`: makes tokens less likely that would go on with a repetition.

    It can only concern tokens of the text, so that llama.cpp is shown no others.
    """

    def __init__(self, prototype: _Handle, prompt: Sequence[int]) -> None:
        """prototype: a dry sampler that has seen no token."""
        self._prototype = prototype
        # A copy holds room for a whole context: rows that wait for a slot have none yet.
        self._own: _Handle | None = None
        self._unseen = list(prompt)
        self._words = dict.fromkeys(prompt)

    def apply(self, logits: NDArray[np.float32]) -> None:
        tokens = np.fromiter(self._words, np.int64, len(self._words))
        entries = np.zeros(len(tokens), _ENTRY)
        entries["id"], entries["logit"] = tokens, logits[tokens]
        array = lib.llama_token_data_array(
            data=ctypes.cast(entries.ctypes.data, lib.llama_token_data_p),
            size=len(entries),
            selected=-1,
            sorted=False,
        )
        lib.llama_sampler_apply(self._caught_up(), ctypes.byref(array))
        logits[tokens] = entries["logit"]

    def accept(self, token: int) -> None:
        self._unseen.append(token)
        self._words[token] = None

    def _caught_up(self) -> Any:
        """This row's own sampler, which has seen the text."""
        if self._own is None:
            self._own = _Handle(lib.llama_sampler_clone(self._prototype.sampler))
        for token in self._unseen:
            lib.llama_sampler_accept(self._own.sampler, token)
        self._unseen.clear()
        return self._own.sampler
