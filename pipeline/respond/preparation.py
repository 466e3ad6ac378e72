"""What has to be known of a request before it is computed: whether it can be served, and its tokens."""

from __future__ import annotations

from collections.abc import Collection

from pipeline.chat.chat_format import ChatFormats
from pipeline.chat.pieces import Piece, Pieces
from pipeline.chat.prompts import PromptBuilder, embedding_inputs
from pipeline.constraint.constraints import constraint_of
from pipeline.constraint.guides import Guides
from pipeline.engine.embedder import fit
from pipeline.engine.model import Vocabulary
from pipeline.errors import RowError
from pipeline.request.fields import UNLIMITED
from pipeline.request.schema import ChatRequest, CompletionRequest, EmbeddingRequest, Request
from pipeline.respond.ask import Ask, echoes
from pipeline.respond.responders import served


class GenerativePreparation:
    """Of chats and completions. It needs the vocabulary, not the weights. Safe for several threads."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        formats: ChatFormats,
        names: Collection[str],
        *,
        context: int,
        limit: int | None = None,
    ) -> None:
        """names: the model's in requests. context: tokens of a row. limit: of the model's own context, which
        max_tokens may not go beyond; `context` where unknown."""
        self._vocabulary, self._formats = vocabulary, formats
        self._names = frozenset(names)
        self._prompts = PromptBuilder(vocabulary, context, formats)
        self._pieces = Pieces(vocabulary)
        self._guides = Guides(vocabulary, formats)
        self._limit = limit or context

    def prepare(self, request: Request | RowError, name: str) -> Ask:
        """What the request asks of the engine. Raises RowError where it can't be served."""
        request = served(request, self._names)
        if isinstance(request, EmbeddingRequest):
            raise RowError(
                "invalid_request",
                "the model generates text and gives no embeddings: use an embedding model",
            )
        self._check_length(request)
        tokens = self._prompts.build(request)
        constraint = constraint_of(request)
        heals = not echoes(request)
        guide = self._guides.guide(constraint, tokens, heals=heals) if constraint else None
        return Ask(name, request, tokens, self._piece(request), guide)

    def _piece(self, request: ChatRequest | CompletionRequest) -> Piece:
        if not isinstance(request, ChatRequest):
            return self._vocabulary.piece
        return self._pieces.showing(self._formats.of(request).marks(tools=bool(request.offered)))

    def _check_length(self, request: ChatRequest | CompletionRequest) -> None:
        """The default may be more than a small context holds; what a row asks for may not."""
        if self._limit < request.max_tokens < UNLIMITED and "max_tokens" in request.model_fields_set:
            reason = f"max_tokens must be an integer from 1 to {self._limit}, the model's context limit"
            raise RowError("invalid_request", f"{reason}, not {request.max_tokens}", "max_tokens")


class EmbeddingPreparation:
    """Of embeddings. It needs the vocabulary, not the weights. Safe for several threads."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        names: Collection[str],
        *,
        context: int,
        dimensions: int,
        truncate: bool,
    ) -> None:
        """names: the model's in requests. context: tokens of an input. dimensions: of the model's vectors.
        truncate: cut over-long inputs instead of refusing them."""
        self._vocabulary, self._names = vocabulary, frozenset(names)
        self._context, self._dimensions, self._truncate = context, dimensions, truncate

    def prepare(self, request: Request | RowError) -> tuple[EmbeddingRequest, list[list[int]]]:
        """The request, and the tokens of its inputs. Raises RowError where it can't be served."""
        request = served(request, self._names)
        if not isinstance(request, EmbeddingRequest):
            raise RowError(
                "invalid_request",
                "the model gives embeddings only: use a generative model for this endpoint",
            )
        if request.dimensions and request.dimensions > self._dimensions:
            raise RowError(
                "invalid_request",
                f"dimensions must be from 1 to {self._dimensions}, the model's vector length",
                "dimensions",
            )
        inputs = embedding_inputs(self._vocabulary, request, None if self._truncate else self._context)
        return request, [
            fit(tokens, self._context, self._truncate, self._vocabulary, name)
            for name, tokens in zip(request.names, inputs, strict=True)
        ]
