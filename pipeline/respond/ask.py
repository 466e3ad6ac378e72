"""What one row asks of the engine: a sequence for each choice, and one for each fork of its labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from hashlib import blake2b

from pipeline.constraint.labels import LabelTree, Tokens
from pipeline.engine.guide import Guide
from pipeline.engine.model import Vocabulary
from pipeline.engine.runner import NewSequence
from pipeline.engine.sampling import SamplingParams, new_sampler
from pipeline.engine.sequence import Generation, Outcome
from pipeline.engine.sequence import Sequence as Generating
from pipeline.engine.text import TextStream
from pipeline.errors import RowError
from pipeline.request.schema import CompletionRequest, GenerationFields
from pipeline.text.pieces import Piece

# What a request says of its sampling, by the names that the engine knows.
_SAMPLING = {field.name for field in fields(SamplingParams)} - {"seed", "end_tokens"}


@dataclass(frozen=True, slots=True)
class Answer:
    """A row's choices, and the log-probability of each of its labels, where asked for."""

    choices: tuple[Generation, ...]
    labels: dict[str, float] | None = None

    @property
    def size(self) -> int:
        """About how many numbers it holds."""
        likeliest = (len(place.top) for choice in self.choices for place in choice.logprobs)
        return sum(choice.completion_tokens for choice in self.choices) + 4 * sum(likeliest) + 64


@dataclass(frozen=True, slots=True)
class Ask:
    """name: the row's. tokens: its prompt. piece: the bytes of an answer's token."""

    name: str
    request: GenerationFields
    tokens: list[int]
    piece: Piece
    guide: Guide | None = None
    labels: LabelTree | None = None

    @property
    def choices(self) -> int:
        """How many have to be computed: where nothing is drawn, all are the same."""
        return self.request.n if _draws(self.request) else 1

    def sequences(self, vocabulary: Vocabulary, seconds: float) -> list[NewSequence]:
        """seconds: the row's deadline. What becomes of the sequences goes to `answer`, in order."""
        lead: list[Generating] = []
        return [*self._choices(lead, vocabulary, seconds), *self._probes(lead, vocabulary, seconds)]

    def answer(self, outcomes: Sequence[Outcome]) -> Answer | RowError:
        if error := next((outcome for outcome in outcomes if isinstance(outcome, RowError)), None):
            return error
        generations = [outcome for outcome in outcomes if isinstance(outcome, Generation)]
        choices, probes = generations[: self.choices], generations[self.choices :]
        same = self.request.n // self.choices
        labels = self.labels.logprobs([probe.scores for probe in probes]) if self.labels else None
        return Answer(tuple(choices * same), labels)

    def _choices(
        self, lead: list[Generating], vocabulary: Vocabulary, seconds: float
    ) -> Iterator[NewSequence]:
        request = self.request
        stream = TextStream(self.piece, tuple(request.stop))

        def new(seed: int, on_finish: Callable[[Outcome], None]) -> Generating:
            row = Generating(
                prompt=self.tokens,
                max_tokens=request.max_tokens,
                new_sampler=partial(new_sampler, _params(request, seed, vocabulary), self.tokens, vocabulary),
                stream=stream,
                on_finish=on_finish,
                guide=self.guide,
                logprobs=request.top,
                echo=isinstance(request, CompletionRequest) and request.echo and request.top is not None,
                lead=lead[0] if lead else None,
                seconds=seconds,
            )
            lead.append(row)
            return row

        return (partial(new, self._seed(number)) for number in range(self.choices))

    def _probes(
        self, lead: list[Generating], vocabulary: Vocabulary, seconds: float
    ) -> Iterator[NewSequence]:
        def new(path: Tokens, scored: Tokens, on_finish: Callable[[Outcome], None]) -> Generating:
            prompt = [*self.tokens, *path]
            sampler = partial(new_sampler, SamplingParams(), prompt, vocabulary)
            stream = TextStream(self.piece)
            return Generating(
                prompt, 0, sampler, stream, on_finish, scored=scored, lead=lead[0], seconds=seconds
            )

        return (partial(new, fork.path, fork.tokens) for fork in (self.labels.forks if self.labels else ()))

    def _seed(self, number: int) -> int:
        """A row without a seed gets one from its name, so that a retry gives the same text."""
        seed = self.request.seed
        if seed is not None and not number:
            return seed
        name = f"{self.name if seed is None else seed}" + (f"\0{number}" if number else "")
        return int.from_bytes(blake2b(name.encode("utf-8", "replace"), digest_size=8).digest())


def key_of(request: GenerationFields) -> bytes | None:
    """Equal for requests with one and the same answer; None where a seed of the row's own draws it."""
    if _draws(request) and request.seed is None:
        return None
    asked = request.model_dump_json()
    return blake2b(f"{type(request).__name__} {asked}".encode(), digest_size=16).digest()


def _draws(request: GenerationFields) -> bool:
    """Whether chance has a say."""
    return bool(request.temperature or request.xtc_probability)


def _params(request: GenerationFields, seed: int, vocabulary: Vocabulary) -> SamplingParams:
    asked = {name: getattr(request, name) for name in _SAMPLING}
    return SamplingParams(**asked | {"seed": seed, "end_tokens": vocabulary.end_tokens})
