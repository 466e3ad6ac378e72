"""Guides over llguidance: which token may come next, by a constraint compiled once and copied per row."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property, partial
from threading import Lock
from typing import Any

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from numpy.typing import NDArray

from pipeline.chat.chat_format import ChatFormats
from pipeline.chat.pieces import control_tokens
from pipeline.chat.tool_forms import ToolForm
from pipeline.constraint.answer_text import Ahead, AnswerText, answer_text
from pipeline.constraint.constraints import Constraint
from pipeline.constraint.grammar_errors import grammar_error
from pipeline.constraint.grammars import grammar_of
from pipeline.constraint.guide_tokenizer import new_tokenizer
from pipeline.constraint.label_guide import LabelGuide
from pipeline.constraint.labels import EndsAfter, SpelledLabels, spell_labels
from pipeline.constraint.lark import quoted
from pipeline.constraint.matcher_guide import MatcherGuide
from pipeline.constraint.spelling import KNOWN, Speller, Tokens
from pipeline.engine.model import Vocabulary
from pipeline.errors import RowError

CACHED = 256
CACHED_LABELS = 1024
_LIMITS = LLParserLimits(verbose_errors=False)


def check(constraint: Constraint) -> None:
    """Raises RowError, as `Guides.guide` would, for what is wrong whatever the model's vocabulary."""
    _, messages = LLMatcher.validate_grammar_with_warnings(grammar_of(constraint, None))
    if messages:
        raise grammar_error(constraint, messages[0])


class Guides:
    """The guides of one model. Safe for several threads."""

    def __init__(self, vocabulary: Vocabulary, formats: ChatFormats | None = None) -> None:
        """formats: chat templates instead of the model's own; they tell how it calls tools."""
        self._vocabulary = vocabulary
        self._formats = formats or ChatFormats.of_model(vocabulary)
        self._compiled: OrderedDict[Constraint, tuple[MatcherGuide, AnswerText | Ahead | None] | RowError] = (
            OrderedDict()
        )
        self._spelled: OrderedDict[tuple[Any, ...], SpelledLabels | None] = OrderedDict()
        self._lock = Lock()

    def guide(self, constraint: Constraint, before: Sequence[int] = (), *, heals: bool = True) -> LabelGuide:
        """A guide at the beginning of the text. Raises RowError, which names what can't be done.

        before: the prompt. heals: whether a label may take the prompt's last tokens back, to be spelled with
        their text.
        """
        with self._lock:
            found = self._compiled.get(constraint)
            if found is None:
                found = self._compiled[constraint] = self._compile(constraint)
                if len(self._compiled) > CACHED:
                    self._compiled.popitem(last=False)
            self._compiled.move_to_end(constraint)
            if isinstance(found, RowError):
                raise found
            matcher, text = found[0].copy(), found[1]
        text = text.copy() if isinstance(text, AnswerText) else text
        spell = partial(self._spell, constraint, heals)
        guide = LabelGuide(matcher, text, before[-KNOWN:], spell, self._piece, self._speller.is_own)
        guide.look()
        return guide

    def _spell(
        self,
        constraint: Constraint,
        heals: bool,
        said: bytes,
        ahead: Ahead,
        before: Sequence[int],
        at: MatcherGuide,
    ) -> SpelledLabels | None:
        """The same for all rows that have said the same behind prompts that end alike."""
        most_back = KNOWN if heals and not said else 0
        key = (constraint, said, self._speller.context(before), most_back)
        with self._lock:
            if key in self._spelled:
                self._spelled.move_to_end(key)
                return self._spelled[key]
        found = spell_labels(ahead, before, self._speller, self._ends_after(ahead, at), most_back=most_back)
        with self._lock:
            self._spelled[key] = found
            if len(self._spelled) > CACHED_LABELS:
                self._spelled.popitem(last=False)
        return found

    def _ends_after(self, ahead: Ahead, at: MatcherGuide) -> EndsAfter:
        def ends_after(tokens: Tokens, extra: int, closer: bytes) -> Tokens:
            if ahead.whole:
                return self._vocabulary.end_tokens
            guide = at.copy()
            guide.accept_text(self._speller.text(tokens)[extra:])
            first = b'"' if closer.startswith(b'"') else b",}]"
            found = guide.allowed()
            return tuple(
                t for t in found if self._vocabulary.is_eog(t) or self._speller.piece(t)[:1] in first
            )

        return ends_after

    def _compile(self, constraint: Constraint) -> tuple[MatcherGuide, AnswerText | Ahead | None] | RowError:
        form = self._form(constraint)
        try:
            grammar = grammar_of(constraint, form, self._literal)
            letters = grammar_of(constraint, form)
        except RowError as error:
            return error
        _, messages = LLMatcher.validate_grammar_with_warnings(grammar, self._tokenizer)
        if messages:
            return grammar_error(constraint, messages[0])
        matcher = LLMatcher(self._tokenizer, grammar, log_level=0, limits=_LIMITS)
        if matcher.is_error():
            return grammar_error(constraint, matcher.get_error())
        guide = MatcherGuide(matcher, self._tokenizer, self._ends, self._vocabulary.size, constraint.param)
        # Labels are looked for in JSON; a call in marks of its own is followed token by token.
        has_labels = form is None or (form.has_json and "{" not in form.begin + form.after_name)
        return guide, answer_text(constraint, letters) if has_labels else None

    def _piece(self, token: int) -> bytes:
        """A control token's text too, where a constraint asks for one."""
        return self._vocabulary.piece(token) or self._control_pieces.get(token, b"")

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
    def _control_pieces(self) -> dict[int, bytes]:
        return {token: text.encode() for text, token in self._controls.items()}

    @cached_property
    def _speller(self) -> Speller:
        return Speller(self._vocabulary, self._controls)

    @cached_property
    def _tokenizer(self) -> LLTokenizer:
        return new_tokenizer(self._vocabulary, self._controls)

    @cached_property
    def _ends(self) -> NDArray[np.int32]:
        bits = np.zeros((self._vocabulary.size + 31) // 32 * 32, np.uint8)
        bits[list(self._vocabulary.end_tokens)] = 1
        return np.packbits(bits, bitorder="little").view(np.int32)
