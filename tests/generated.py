"""Generated answers for tests, and their way through Parquet."""

from __future__ import annotations

import math
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from pipeline.answer.answers import Answers
from pipeline.engine.fakes.fake import EOS, FakeVocabulary
from pipeline.engine.sampling.logprobs import TokenLogprob
from pipeline.engine.sequence import FinishReason, Generation
from pipeline.request.schema import parse_request

NOTHING = pa.schema([])
CHAT = parse_request("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}]})
COMPLETION = parse_request("/v1/completions", {"prompt": "Hi"})
VOCABULARY = FakeVocabulary()
generate = Answers("m", "fingerprint", NOTHING, vocabulary=VOCABULARY)
embed = Answers("m", "fingerprint", NOTHING, "embed")

logprobs = st.floats(-200, 0) | st.just(-math.inf)


@st.composite
def entries(draw: st.DrawFn, token: int) -> TokenLogprob:
    """The token, with some of the likeliest ones, itself among them or not."""
    known = draw(st.dictionaries(st.integers(0, 259), logprobs, max_size=4)) | {token: draw(logprobs)}
    falling = sorted(known.items(), key=lambda item: -item[1])
    return TokenLogprob(token, known[token], tuple(falling[: draw(st.integers(0, 5))]))


@st.composite
def generations(draw: st.DrawFn, asked: bool | None = None) -> Generation:
    """asked: whether the row asked for logprobs."""
    text = draw(st.text(max_size=20))
    tokens = (*text.encode(), EOS)
    asked = draw(st.booleans()) if asked is None else asked
    return Generation(
        text=text,
        tokens=tokens,
        finish_reason=draw(st.sampled_from(FinishReason.__args__)),
        prompt_tokens=draw(st.integers(1, 500)),
        cached_tokens=draw(st.integers(0, 500)),
        logprobs=tuple(draw(entries(token)) for token in tokens) if asked else (),
        complete=draw(st.booleans()),
    )


def through_parquet(answers: Answers, *rows: dict[str, Any]) -> list[dict[str, Any]]:
    sink = pa.BufferOutputStream()
    pq.write_table(answers.table(rows, pa.table({"_": [0] * len(rows)})), sink)
    return pq.read_table(pa.BufferReader(sink.getvalue())).to_pylist()


def said(text: str, **fields: Any) -> Generation:
    return Generation(text, tuple(text.encode()), fields.pop("finish_reason", "stop"), 3, 2, **fields)
