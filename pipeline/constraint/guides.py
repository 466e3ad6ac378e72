"""Guides over llguidance: which token may come next, by a constraint compiled once and copied per row."""

from __future__ import annotations

from collections import OrderedDict
from functools import cached_property
from threading import Lock

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from numpy.typing import NDArray

from pipeline.constraint.call_grammars import quoted
from pipeline.constraint.constraints import Constraint
from pipeline.constraint.grammar_errors import grammar_error
from pipeline.constraint.grammars import grammar_of
from pipeline.constraint.guide_tokenizer import new_tokenizer
from pipeline.engine.guide import Guide
from pipeline.engine.model import Vocabulary
from pipeline.errors import RowError
from pipeline.text.chat_format import ChatFormats
from pipeline.text.pieces import control_tokens
from pipeline.text.tool_forms import ToolForm

CACHED = 256
_FIRST_LINE = 300
_LIMITS = LLParserLimits(verbose_errors=False)


def check(constraint: Constraint) -> None:
    """Raises RowError, as `Guides.guide` would, for what is wrong whatever the model's vocabulary."""
    _, messages = LLMatcher.validate_grammar_with_warnings(grammar_of(constraint, None))
    if messages:
        raise grammar_error(constraint, messages[0])


class MatcherGuide:
    """A `Guide` over one matcher. Not for two threads at once."""

    def __init__(self, matcher: LLMatcher, ends: NDArray[np.int32], size: int, param: str | None) -> None:
        """ends: the end-of-generation tokens as a bitmask. size: of the vocabulary."""
        self._matcher = matcher
        self._ends = ends
        self._size = size
        self._param = param
        self._bits = np.zeros(len(ends), np.int32)
        self._fresh = False

    def mask(self, logits: NDArray[np.float32]) -> None:
        """Raises RowError where the constraint became too complex to follow."""
        self._look()
        barred = np.unpackbits(np.invert(self._bits).view(np.uint8), count=self._size, bitorder="little")
        np.copyto(logits, -np.inf, where=barred.view(np.bool_))

    def accept(self, token: int) -> None:
        """Raises RowError where `token` may not come next."""
        self._fresh = False
        if not self._matcher.consume_token(token):
            raise self._failure()

    def forced(self) -> list[int]:
        return self._matcher.compute_ff_tokens()

    @property
    def done(self) -> bool:
        if self._matcher.is_stopped() or not self._matcher.is_accepting():
            return self._matcher.is_stopped()
        self._look()
        return not np.any(self._bits & ~self._ends)

    @property
    def complete(self) -> bool:
        return self._matcher.is_accepting() and not self._matcher.is_error()

    def copy(self) -> MatcherGuide:
        return MatcherGuide(self._matcher.deep_copy(), self._ends, self._size, self._param)

    def _look(self) -> None:
        """Bit t of `_bits`: token t may come next."""
        if self._fresh:
            return
        self._matcher.unsafe_compute_mask_ptr(self._bits.ctypes.data, self._bits.nbytes)
        if self._matcher.is_error():
            raise self._failure()
        self._fresh = True

    def _failure(self) -> RowError:
        reason = self._matcher.get_error().partition("\n")[0][:_FIRST_LINE]
        return RowError("invalid_request", f"{self._param} can't be followed: {reason}", self._param)


class Guides:
    """The guides of one model. Safe for several threads."""

    def __init__(self, vocabulary: Vocabulary, formats: ChatFormats | None = None) -> None:
        """formats: chat templates instead of the model's own; they tell how it calls tools."""
        self._vocabulary = vocabulary
        self._formats = formats or ChatFormats.of_model(vocabulary)
        self._compiled: OrderedDict[Constraint, MatcherGuide | RowError] = OrderedDict()
        self._lock = Lock()

    def guide(self, constraint: Constraint) -> Guide:
        """A guide at the beginning of the text. Raises RowError, which names what can't be done."""
        with self._lock:
            found = self._compiled.get(constraint)
            if found is None:
                found = self._compiled[constraint] = self._compile(constraint)
                if len(self._compiled) > CACHED:
                    self._compiled.popitem(last=False)
            self._compiled.move_to_end(constraint)
            if isinstance(found, RowError):
                raise found
            return found.copy()

    def _compile(self, constraint: Constraint) -> MatcherGuide | RowError:
        try:
            grammar = grammar_of(constraint, self._form(constraint), self._literal)
        except RowError as error:
            return error
        _, messages = LLMatcher.validate_grammar_with_warnings(grammar, self._tokenizer)
        if messages:
            return grammar_error(constraint, messages[0])
        matcher = LLMatcher(self._tokenizer, grammar, log_level=0, limits=_LIMITS)
        if matcher.is_error():
            return grammar_error(constraint, matcher.get_error())
        return MatcherGuide(matcher, self._ends, self._vocabulary.size, constraint.param)

    def _form(self, constraint: Constraint) -> ToolForm | None:
        return self._formats.for_tools.form if constraint.kind == "tools" else None

    def _literal(self, text: str) -> str:
        """`text` in Lark; a control token in it can only come as that token."""
        parts: list[str] = []
        while text:
            control = next((c for c in self._controls if c in text), None)
            before, _, text = text.partition(control) if control else (text, "", "")
            parts += [quoted(before)] if before else []
            parts += [f"<[{self._controls[control]}]>"] if control else []
        return " ".join(parts) or '""'

    @cached_property
    def _controls(self) -> dict[str, int]:
        return control_tokens(self._vocabulary)

    @cached_property
    def _tokenizer(self) -> LLTokenizer:
        return new_tokenizer(self._vocabulary, self._controls)

    @cached_property
    def _ends(self) -> NDArray[np.int32]:
        bits = np.zeros((self._vocabulary.size + 31) // 32 * 32, np.uint8)
        bits[list(self._vocabulary.end_tokens)] = 1
        return np.packbits(bits, bitorder="little").view(np.int32)
