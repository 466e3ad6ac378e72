"""What one request asks of the engine: a sequence for each choice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from hashlib import blake2b

from pipeline.chat.pieces import Piece
from pipeline.constraint.label_guide import LabelGuide
from pipeline.engine.model import Vocabulary
from pipeline.engine.priority import Deadlines, Priority
from pipeline.engine.sampling.label_draw import LabelParams
from pipeline.engine.sampling.sampling import SamplingParams, new_sampler
from pipeline.engine.sequence import Generation, Outcome
from pipeline.engine.sequence import Sequence as Generating
from pipeline.engine.submission import NewSequence
from pipeline.engine.text import TextStream
from pipeline.errors import RowError
from pipeline.request.schema import ChatRequest, CompletionRequest

# What a request says of its sampling, by the names that the engine knows.
_SAMPLING = {field.name for field in fields(SamplingParams)} - {"seed", "end_tokens", "labels"}
# Cuts that are made among labels where the request itself asks for them: the defaults are made for
# vocabularies, and would leave out labels that the row offers.
_LABEL_CUTS = ("top_k", "top_p", "min_p")


@dataclass(frozen=True, slots=True)
class Generations:
    """What the engine made of a request: its choices."""

    choices: tuple[Generation, ...]

    @property
    def size(self) -> int:
        """About how many numbers it holds."""
        likeliest = sum(len(place.top) for choice in self.choices for place in choice.logprobs)
        labels = sum(len(decision.scores) for choice in self.choices for decision in choice.decisions)
        return sum(choice.completion_tokens for choice in self.choices) + 4 * likeliest + 4 * labels + 64


@dataclass(frozen=True, slots=True)
class Ask:
    """name: the request's own. tokens: its prompt. piece: the bytes of an answer's token. guide: at the
    beginning of its answer."""

    name: str
    request: ChatRequest | CompletionRequest
    tokens: list[int]
    piece: Piece
    guide: LabelGuide | None = None

    @property
    def choices(self) -> int:
        """How many have to be computed: where nothing is drawn, all are the same."""
        return self.request.n if _draws(self.request) else 1

    def sequences(
        self, vocabulary: Vocabulary, deadlines: Deadlines, priority: Priority = Priority.BATCH
    ) -> list[NewSequence]:
        """One for each choice; their outcomes go to `generations`, in order."""
        request, lead = self.request, list[Generating]()
        healed, skipped = (self.guide.healed, self.guide.skipped) if self.guide else (0, 0)
        stream = TextStream(self.piece, tuple(request.stop), skipped)
        prompt = self.tokens[: len(self.tokens) - healed]

        def new(number: int, on_finish: Callable[[Outcome], None]) -> Generating:
            params = _params(request, self._seed(number), vocabulary)
            row = Generating(
                prompt=prompt,
                max_tokens=request.max_tokens,
                new_sampler=partial(new_sampler, params, self.tokens, vocabulary),
                stream=stream,
                on_finish=on_finish,
                guide=self.guide,
                logprobs=request.top,
                echo=echoes(request),
                every_label=request.label_logprobs and not number,
                healed=healed,
                lead=lead[0] if lead else None,
                deadlines=deadlines,
                priority=priority,
            )
            lead.append(row)
            return row

        return [partial(new, number) for number in range(self.choices)]

    def generations(self, outcomes: Sequence[Outcome]) -> Generations:
        """Raises RowError where any of them is one."""
        if error := next((outcome for outcome in outcomes if isinstance(outcome, RowError)), None):
            raise error
        found = [outcome for outcome in outcomes if isinstance(outcome, Generation)]
        return Generations(tuple(found * (self.request.n // self.choices)))

    def _seed(self, number: int) -> int:
        """A row without a seed gets one from its name, so that a retry gives the same text."""
        seed = self.request.seed
        if seed is not None and not number:
            return seed
        name = f"{self.name if seed is None else seed}" + (f"\0{number}" if number else "")
        return int.from_bytes(blake2b(name.encode("utf-8", "replace"), digest_size=8).digest())


def key_of(request: ChatRequest | CompletionRequest) -> bytes | None:
    """Equal for requests with one and the same answer; None where a seed of the row's own draws it."""
    if _draws(request) and request.seed is None:
        return None
    cuts = sorted(request.model_fields_set & set(_LABEL_CUTS))
    asked = f"{type(request).__name__} {cuts} {request.model_dump_json()}"
    return blake2b(asked.encode(), digest_size=16).digest()


def _draws(request: ChatRequest | CompletionRequest) -> bool:
    """Whether chance has a say."""
    return bool(request.temperature or request.xtc_probability)


def _params(request: ChatRequest | CompletionRequest, seed: int, vocabulary: Vocabulary) -> SamplingParams:
    asked = {name: getattr(request, name) for name in _SAMPLING}
    cuts = {name: getattr(request, name) for name in _LABEL_CUTS if name in request.model_fields_set}
    return SamplingParams(
        **asked | {"seed": seed, "end_tokens": vocabulary.end_tokens, "labels": LabelParams(**cuts)}
    )


def echoes(request: ChatRequest | CompletionRequest) -> bool:
    """Whether the log-probabilities of the prompt's own tokens are asked for."""
    return isinstance(request, CompletionRequest) and request.echo and request.top is not None
