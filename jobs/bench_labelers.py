"""Who labels the benchmark's texts: nightherd, llama-server, and llama.cpp asked label by label."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from bench_label_rows import Labeled, Text, body, grammar, labels_of, schema
from bench_peers import Server, ServerSettings

from pipeline.config import make_job
from pipeline.job.build import build_worker
from pipeline.output.fingerprint import Fingerprint
from pipeline.request.rows import Row
from pipeline.request.schema import parse_request

CHAT = "/v1/chat/completions"
Run = tuple[list[Labeled], float]
"""What became of the texts, and the seconds that it took."""


class NightherdLabeler:
    """A worker's responder, as a job would have it."""

    def __init__(self, model: Path, *, slots: int, threads: int, context: int, probabilities: bool) -> None:
        """probabilities: whether rows ask for `label_logprobs`."""
        settings = {
            "model.path": str(model),
            "engine.slots": slots,
            "engine.context": context,
            "input.path": "unread",
            "output.path": "memory://unwritten",
            "retry.row_deadline": 3600,
        }
        job = make_job({}, settings.items(), "benchmark")
        self._responder = build_worker(job, Fingerprint({}), threads=threads, gpus=0)._responder
        self._probabilities = probabilities

    def run(self, texts: Sequence[Text], form: str) -> Run:
        bodies = [self._body(text, form) for text in texts]
        began = time.perf_counter()
        rows = [Row(str(at), parse_request(CHAT, each)) for at, each in enumerate(bodies)]
        answers = self._responder.respond(rows, 1)
        seconds = time.perf_counter() - began
        if refused := next((answer["error"] for answer in answers if answer.get("error")), None):
            raise SystemExit(f"a row was refused: {refused}")
        return [self._labeled(answer, form) for answer in answers], seconds

    def _body(self, text: Text, form: str) -> dict[str, Any]:
        asked = body(text, form)
        if form == "enum":
            asked["response_format"] = schema(form)
        else:
            asked["guided_choice"] = list(labels_of(form).values())
        return asked | ({"label_logprobs": True} if self._probabilities else {})

    def _labeled(self, answer: dict[str, Any], form: str) -> Labeled:
        text = json.loads(answer["text"])["topic"] if form == "enum" else answer["text"]
        told = answer.get("label_logprobs")
        return Labeled(text, {each["label"]: each["probability"] for each in told} if told else None)


class ServerLabeler:
    """llama-server with the same schema, or the same choice as a grammar."""

    def __init__(self, model: Path, *, slots: int, threads: int, context: int) -> None:
        settings = ServerSettings(str(model), slots, threads, context, 512, False)
        self._server = Server(settings, python=None, binary=None)

    def run(self, texts: Sequence[Text], form: str) -> Run:
        limits = {"response_format": schema(form)} if form == "enum" else {"grammar": grammar(form)}
        answers, seconds = self._server.answers(CHAT, [body(text, form) | limits for text in texts])
        found = [answer["choices"][0]["message"]["content"] for answer in answers]
        return [Labeled(_topic(text) if form == "enum" else text) for text in found], seconds

    def close(self) -> None:
        self._server.close()


class PlainLabeler:
    """Each label by itself: its tokens behind the prompt's, their log-probabilities added up.

    It shares nothing with nightherd but the template's text.
    """

    def __init__(self, model: Path, *, threads: int, context: int) -> None:
        from llama_cpp import Llama
        from llama_cpp.llama_chat_format import Jinja2ChatFormatter

        self._llama = Llama(
            str(model),
            n_ctx=context,
            n_threads=threads,
            n_threads_batch=threads,
            logits_all=True,
            verbose=False,
        )
        template = self._llama.metadata["tokenizer.chat_template"]
        self._ends = [token for token in range(self._llama.n_vocab()) if _is_end(self._llama, token)]
        self._render = Jinja2ChatFormatter(template, eos_token="", bos_token="")

    def run(self, texts: Sequence[Text], form: str) -> tuple[list[tuple[Labeled, Labeled]], float]:
        """For each text, by sums and by means over a label's tokens."""
        began = time.perf_counter()
        found = [self._label(text, form) for text in texts]
        return found, time.perf_counter() - began

    def _label(self, text: Text, form: str) -> tuple[Labeled, Labeled]:
        asked = self._render(messages=body(text, form)["messages"]).prompt  # type: ignore[arg-type]
        prefix = '{"topic":"' if form == "enum" else ""
        suffix = '"}' if form == "enum" else ""
        labels = list(labels_of(form).values())
        spelled = [self._tokens(f"{asked}{prefix}{label}{suffix}") for label in labels]
        sure = len(self._tokens(asked))
        while all(tokens[: sure + 1] == spelled[0][: sure + 1] for tokens in spelled):
            sure += 1
        self._llama.reset()
        self._llama.eval(spelled[0][:sure])
        sums, lengths = [], []
        for label, tokens in zip(labels, spelled, strict=True):
            size = len(tokens) - len(self._tokens(suffix)) if suffix else len(tokens)
            begins = any(other != label and other.startswith(label) for other in labels)
            total, count = self._score(tokens, sure, size, begins, bool(suffix))
            sums.append(total)
            lengths.append(count)
        return (
            _labeled(labels, sums),
            _labeled(labels, [total / count for total, count in zip(sums, lengths, strict=True)]),
        )

    def _score(
        self, tokens: list[int], sure: int, size: int, begins: bool, quoted: bool
    ) -> tuple[float, int]:
        """The label's tokens, from `sure` to `size`, and its end where another label begins with it."""
        if size - (0 if begins else 1) > sure:
            self._llama.n_tokens = sure
            self._llama.eval(tokens[sure : size - (0 if begins else 1)])
        total = 0.0
        for at in range(sure, size):
            total += _log_softmax(self._llama.scores[at - 1])[tokens[at]]
        if begins:
            following = _log_softmax(self._llama.scores[size - 1])
            ends = [tokens[size]] if quoted else self._ends
            total += float(np.logaddexp.reduce(following[ends]))
        return float(total), size - sure + begins

    def _tokens(self, text: str) -> list[int]:
        return self._llama.tokenize(text.encode(), add_bos=False, special=True)


def _labeled(labels: Sequence[str], scores: Sequence[float]) -> Labeled:
    peak = max(scores)
    weights = [math.exp(score - peak) for score in scores]
    chances = {label: weight / sum(weights) for label, weight in zip(labels, weights, strict=True)}
    return Labeled(max(chances, key=chances.__getitem__), chances)


def _topic(text: str) -> str:
    try:
        return str(json.loads(text)["topic"])
    except (ValueError, KeyError):
        return ""


def _is_end(llama: Any, token: int) -> bool:
    import llama_cpp

    return bool(llama_cpp.llama_vocab_is_eog(llama_cpp.llama_model_get_vocab(llama.model), token))


def _log_softmax(logits: Any) -> Any:
    exact = np.asarray(logits, np.float64)
    return exact - np.logaddexp.reduce(exact)
