"""`POST /tokenize`, `/detokenize` and `/apply-template`, as llama-server has them."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request

from pipeline.chat.pieces import Piece, Pieces
from pipeline.engine.model import Vocabulary
from pipeline.errors import RowError
from pipeline.request.schema import ChatRequest
from pipeline.serve.answer_schema import TEXT, WHOLE, listed, record
from pipeline.serve.asked import json_object, read_asked
from pipeline.serve.connection import read_body
from pipeline.serve.door import Door
from pipeline.serve.schema import answers_json, body_of, operation
from pipeline.serve.token_requests import Detokenize, Tokenize, parsed

router = APIRouter()

_PIECE = record({"id": WHOLE, "piece": {"anyOf": [TEXT, listed(WHOLE)]}})
_TOKENS = answers_json(record({"tokens": listed({"anyOf": [WHOLE, _PIECE]})}))


@router.post("/tokenize", responses=_TOKENS, openapi_extra=body_of(Tokenize))
async def tokenize(request: Request) -> dict[str, Any]:
    door, body = await _opened(request)
    asked, vocabulary = parsed(Tokenize, body), door.service.vocabulary
    return {"tokens": await asyncio.to_thread(_tokens, vocabulary, asked)}


@router.post(
    "/detokenize", responses=answers_json(record({"content": TEXT})), openapi_extra=body_of(Detokenize)
)
async def detokenize(request: Request) -> dict[str, Any]:
    door, body = await _opened(request)
    asked, vocabulary = parsed(Detokenize, body), door.service.vocabulary
    for at, token in enumerate(asked.tokens):
        _check(vocabulary, token, f"tokens[{at}]")
    return {"content": await asyncio.to_thread(_text, vocabulary, asked.tokens)}


@router.post(
    "/apply-template",
    responses=answers_json(record({"prompt": TEXT})),
    openapi_extra={"requestBody": operation("/v1/chat/completions")["requestBody"]},
)
async def apply_template(request: Request) -> dict[str, Any]:
    door, body = await _opened(request)
    chat = read_asked("/v1/chat/completions", body, door.defaults).request
    assert isinstance(chat, ChatRequest)
    text, _ = await asyncio.to_thread(door.service.prompt, chat)
    return {"prompt": text}


async def _opened(request: Request) -> tuple[Door, dict[str, Any]]:
    door: Door = request.app.state.door
    return door, json_object(await read_body(request, int(door.config.megabytes * 1e6)))


def _tokens(vocabulary: Vocabulary, asked: Tokenize) -> list[Any]:
    found: list[int] = []
    for at, part in enumerate(asked.content):
        if isinstance(part, int):
            _check(vocabulary, part, f"content[{at}]")
            found.append(part)
        else:
            special = asked.add_special and not at
            found += vocabulary.tokenize(part, add_special=special, parse_special=asked.parse_special)
    if not asked.with_pieces:
        return found
    piece = _pieces(vocabulary)
    return [{"id": token, "piece": _shown(piece(token))} for token in found]


def _shown(piece: bytes) -> str | list[int]:
    """A part of a character has no text: it is told by its bytes."""
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return list(piece)


def _text(vocabulary: Vocabulary, tokens: list[int]) -> str:
    return b"".join(map(_pieces(vocabulary), tokens)).decode(errors="replace")


def _pieces(vocabulary: Vocabulary) -> Piece:
    """The texts of control tokens, too."""
    return Pieces(vocabulary).showing(tuple(vocabulary.control_texts))


def _check(vocabulary: Vocabulary, token: int, param: str) -> None:
    if not 0 <= token < vocabulary.size:
        reason = f"{param} must be a token id from 0 to {vocabulary.size - 1}, not {token}"
        raise RowError("invalid_request", reason, param)
