"""Log-probabilities in OpenAI's two shapes: of the text's own tokens, each where it stands."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from openai.types import Completion

from pipeline.answer.answers import Answers
from pipeline.answer.openai_body import to_openai
from pipeline.engine.fakes.fake import EOS, IM_END, FakeVocabulary
from pipeline.engine.sampling.logprobs import TokenLogprob
from pipeline.engine.sequence import Generation
from pipeline.request.rows import Row
from pipeline.request.schema import parse_request
from tests.generated import (
    CHAT,
    COMPLETION,
    NOTHING,
    VOCABULARY,
    generate,
    generations,
    said,
    through_parquet,
)


@given(generations(asked=True))
def test_logprobs_of_a_chat_spell_its_text(generation: Generation) -> None:
    (record,) = through_parquet(generate, generate.chat(Row("a", CHAT), [generation], 1))
    listed = to_openai(record)["choices"][0]["logprobs"]["content"]
    assert bytes(byte for entry in listed for byte in entry["bytes"]).decode() == generation.text
    for entry, asked in zip(listed, generation.logprobs, strict=False):
        assert entry["token"] == bytes(entry["bytes"]).decode(errors="replace")
        assert entry["logprob"] == max(asked.logprob, -9999)
        assert [other["logprob"] for other in entry["top_logprobs"]] == [max(p, -9999) for _, p in asked.top]


@given(generations(asked=True))
def test_logprobs_of_a_completion_are_parallel_lists(generation: Generation) -> None:
    (record,) = through_parquet(generate, generate.completion(Row("a", COMPLETION), [generation], 1))
    found = to_openai(record)["choices"][0]["logprobs"]
    assert len({len(values) for values in found.values()}) == 1
    assert len(found["tokens"]) == len(generation.text.encode())
    for text, logprob, likeliest, at in zip(
        found["tokens"], found["token_logprobs"], found["top_logprobs"], found["text_offset"], strict=True
    ):
        assert likeliest[text] >= logprob
        assert text in ("\N{REPLACEMENT CHARACTER}", generation.text[at])


def test_the_end_is_told_by_its_name_among_the_likeliest_tokens() -> None:
    found = TokenLogprob(97, -1.0, ((97, -1.0), (EOS, -2.0), (IM_END, -3.0)))
    generation = Generation("a", (97,), "length", 1, 0, (found,))
    chat = generate.chat(Row("a", CHAT), [generation], 1)["choices"][0]["logprobs"]["content"][0]
    told = [(other["token"], other["bytes"]) for other in chat["top_logprobs"]]
    assert told == [("a", [97]), ("</s>", None), ("<|im_end|>", None)]
    completion = to_openai(generate.completion(Row("a", COMPLETION), [generation], 1))
    likeliest = completion["choices"][0]["logprobs"]["top_logprobs"]
    assert likeliest == [{"a": -1.0, "</s>": -2.0, "<|im_end|>": -3.0}]


def test_what_a_stop_string_cut_off_has_no_logprobs() -> None:
    found = tuple(TokenLogprob(token, -1.0) for token in b"no!ne")
    generation = Generation("no", tuple(b"no!ne"), "stop", 1, 0, found)
    record = generate.chat(Row("a", CHAT), [generation], 1)
    assert [e["token"] for e in record["choices"][0]["logprobs"]["content"]] == ["n", "o"]


@given(st.text(min_size=1, max_size=8), generations(asked=True), st.booleans(), st.booleans())
def test_echo_puts_the_prompt_before_the_answer(
    prompt: str, generation: Generation, begins: bool, as_tokens: bool
) -> None:
    tokens = VOCABULARY.tokenize(prompt, add_special=begins, parse_special=False)
    request = parse_request(
        "/v1/completions", {"prompt": tokens if as_tokens else prompt, "echo": True, "logprobs": 1}
    )
    entries = (None, *(TokenLogprob(token, -1.0) for token in tokens[1:]))
    generation = replace(generation, prompt_logprobs=entries)
    (record,) = through_parquet(generate, generate.completion(Row("a", request), [generation], 1))
    choice = to_openai(record)["choices"][0]
    assert choice["text"] == record["text"] == prompt + generation.text
    found = choice["logprobs"]
    pieces = [VOCABULARY.piece(token) for token in (*tokens, *generation.text.encode())]
    assert found["tokens"] == [piece.decode(errors="replace") for piece in pieces]
    typed = record["choices"][0]["logprobs"]
    assert (typed["token_logprobs"][0], typed["top_logprobs"][0]) == (None, None)
    # OpenAI's types know no null there.
    assert (found["token_logprobs"][0], found["top_logprobs"][0]) == (-9999.0, {})
    written = b"".join(pieces)
    starts = [sum(map(len, pieces[:i])) for i in range(len(pieces))]
    assert found["text_offset"] == [len(written[:start].decode(errors="ignore")) for start in starts]
    Completion.model_validate(to_openai(record), strict=True)


def test_echo_without_logprobs_is_text_alone() -> None:
    request = parse_request("/v1/completions", {"prompt": "Say: ", "echo": True})
    record = generate.completion(Row("a", request), [said("so")], 1)
    assert to_openai(record)["choices"][0] == {
        "index": 0,
        "text": "Say: so",
        "finish_reason": "stop",
        "logprobs": None,
    }


class Padding(FakeVocabulary):
    """Begins each text with a blank of its own, as some tokenizers do."""

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        return super().tokenize(f" {text}", add_special=add_special, parse_special=parse_special)


def test_a_blank_of_the_tokenizers_own_moves_no_offset() -> None:
    answers = Answers("m", "fingerprint", NOTHING, vocabulary=Padding())
    tokens = Padding().tokenize("ab", add_special=True, parse_special=False)
    entries = (None, *(TokenLogprob(token, -1.0) for token in tokens[1:]))
    generation = Generation("c", (99,), "stop", 4, 0, (TokenLogprob(99, -1.0),), entries)
    request = parse_request("/v1/completions", {"prompt": "ab", "echo": True, "logprobs": 0})
    record = answers.completion(Row("a", request), [generation], 1)
    found = to_openai(record)["choices"][0]["logprobs"]
    assert found["tokens"] == ["", " ", "a", "b", "c"]
    assert found["text_offset"] == [0, 0, 0, 1, 2]
