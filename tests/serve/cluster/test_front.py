"""What stands in front of the replicas in a proxy, with an app that fails as Serve's proxy does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pipeline.pulse import Pulse
from pipeline.serve.cluster import request_body
from pipeline.serve.cluster.front import Front
from pipeline.serve.cluster.gathered import gathered
from pipeline.serve.cluster.replies import OURS
from pipeline.serve.cluster.wish import HEADER, Wish
from pipeline.serve.metrics import Metrics

CHAT = json.dumps({"model": "local", "messages": [{"role": "user", "content": "hello" * 100}]}).encode()
Act = Callable[[Any, Any, Any], Any]


class Proxy:
    """Serve's proxy: acts one after the other, the last one again and again. wishes: what it was told."""

    def __init__(self, *acts: Act) -> None:
        self.acts = list(acts)
        self.bodies: list[bytes] = []
        self.wishes: list[Wish] = []
        self.headers: list[dict[bytes, bytes]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.headers.append(dict(scope["headers"]))
        self.wishes.append(Wish.read(dict(scope["headers"]).get(HEADER, b"").decode()))
        act = self.acts.pop(0) if len(self.acts) > 1 else self.acts[0]
        await act(scope, receive, send)


class Client:
    """messages: what it sends, after which it waits. told: what it gets."""

    def __init__(self, *messages: dict[str, Any]) -> None:
        self.messages = list(messages)
        self.told: list[dict[str, Any]] = []

    async def receive(self) -> dict[str, Any]:
        if self.messages:
            return self.messages.pop(0)
        await asyncio.Event().wait()
        raise AssertionError

    async def send(self, message: dict[str, Any]) -> None:
        self.told.append(message)

    @property
    def status(self) -> int:
        return int(self.told[0]["status"])

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.told)

    def header(self, name: bytes) -> list[bytes]:
        return [value for found, value in self.told[0]["headers"] if found.lower() == name]


def part(body: bytes, more: bool = False) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


def ask(
    proxy: Proxy,
    *messages: dict[str, Any],
    path: str = "/v1/chat/completions",
    method: str = "POST",
    headers: tuple[tuple[bytes, bytes], ...] = (),
    replicas: tuple[str, ...] = ("a", "b"),
) -> Client:
    client = Client(*(messages or (part(CHAT),)))
    scope = {"type": "http", "method": method, "path": path, "headers": list(headers)}
    asyncio.run(Front(proxy, lambda: replicas)(scope, client.receive, client.send))
    return client


def reply(
    *bodies: bytes,
    status: int = 200,
    kind: bytes = b"application/json",
    ours: bool = True,
    whole: bool = True,
) -> Act:
    """An answer in pieces; without its last one where it isn't whole."""

    async def act(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", kind), (b"x-request-id", b"req_1"), (b"x-request-id", b"other")]
        headers += [(OURS.encode(), b"3")] if ours else []
        await send({"type": "http.response.start", "status": status, "headers": headers})
        for body in bodies:
            await send({"type": "http.response.body", "body": body, "more_body": True})
        if whole:
            await send({"type": "http.response.body", "body": b""})

    return act


async def dies(scope: Any, receive: Any, send: Any) -> None:
    """A replica's death, before it said anything."""


def reading(act: Act, bodies: list[bytes]) -> Act:
    async def read(scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message["more_body"]
        bodies.append(body)
        await act(scope, receive, send)

    return read


def test_an_answer_goes_through_as_it_is():
    client = ask(Proxy(reply(b"one", b"two")))
    assert (client.status, client.body) == (200, b"onetwo")
    assert client.header(b"x-request-id") == [b"req_1"]


def test_a_request_whose_replica_dies_before_it_answers_is_asked_again_with_its_whole_body():
    bodies: list[bytes] = []
    proxy = Proxy(reading(dies, bodies), reading(reply(b"yes"), bodies))
    client = ask(proxy, part(CHAT[:10], more=True), part(CHAT[10:]))
    assert (client.status, client.body) == (200, b"yes")
    assert bodies == [CHAT, CHAT]


def test_a_request_that_kills_every_replica_is_not_tried_for_ever():
    proxy = Proxy(dies)
    client = ask(proxy)
    assert client.status == 503 and client.header(b"retry-after")
    assert json.loads(client.body)["error"]["code"] == "service_unavailable"
    assert client.header(b"x-request-id")[0].startswith(b"req_")
    assert len(proxy.wishes) == 2


@pytest.mark.parametrize("path", ["/v1/batches", "/v1/files", "/tokenize"])
def test_what_might_change_something_is_not_tried_again(path):
    proxy = Proxy(dies)
    assert ask(proxy, path=path).status == 503
    assert len(proxy.wishes) == 1


def test_a_stream_that_is_cut_ends_with_an_error_event():
    client = ask(Proxy(reply(b"data: {}\n\n", kind=b"text/event-stream; charset=utf-8", whole=False)))
    first, error, done, rest = client.body.split(b"\n\n")
    assert (first, done, rest) == (b"data: {}", b"data: [DONE]", b"")
    assert json.loads(error.removeprefix(b"data: "))["error"]["code"] == "service_unavailable"
    assert not client.told[-1].get("more_body")


def test_anthropics_clients_are_told_in_their_own_words():
    path = "/llm/v1/messages"
    error = {
        "type": "overloaded_error",
        "message": "the replica that was to answer this request is gone: try again",
    }
    proxy = Proxy(dies)
    client = ask(proxy, path=path)
    assert (client.status, len(proxy.wishes)) == (503, 2)
    assert json.loads(client.body) == {"type": "error", "error": error}
    cut = ask(Proxy(reply(b"event: ping\n\n", kind=b"text/event-stream", whole=False)), path=path)
    name, data = cut.body.decode().removeprefix("event: ping\n\n").removesuffix("\n\n").split("\n")
    assert name == "event: error"
    assert json.loads(data.removeprefix("data: ")) == {"type": "error", "error": error}


def test_a_stream_that_ends_well_has_no_error():
    client = ask(Proxy(reply(b"data: [DONE]\n\n", kind=b"text/event-stream")))
    assert client.body == b"data: [DONE]\n\n"


def test_an_answer_that_is_cut_is_left_without_its_end():
    client = ask(Proxy(reply(b'{"half', whole=False)))
    assert client.body == b'{"half' and client.told[-1]["more_body"]


@pytest.mark.parametrize("status", [404, 408, 500, 503])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models"])
def test_serves_own_refusals_become_errors_that_clients_understand(status, path):
    proxy = Proxy(reply(b"Path not found", status=status, kind=b"text/plain", ours=False))
    client = ask(proxy, path=path)
    assert client.status == 503 and client.header(b"retry-after")
    assert json.loads(client.body)["error"]["type"] == "server_error"


def test_a_replicas_own_errors_stay():
    client = ask(Proxy(reply(b'{"error": {}}', status=404)))
    assert (client.status, client.body) == (404, b'{"error": {}}')


def test_requests_that_begin_alike_wish_alike_and_clients_can_not_wish():
    proxy = Proxy(reply(b""))
    given = (
        (b"X_Session_ID", b"replica:a"),
        (b"x-request-timeout-seconds", b"1"),
        (b"authorization", b"Bearer k"),
    )
    ask(proxy, headers=given)
    ask(proxy, part(CHAT.replace(b"local", b"other")))
    ask(proxy, path="/v1/models", headers=given)
    first, second, third = proxy.wishes
    assert first == second and first.beginnings and not first.replica
    assert third == Wish()
    assert set(proxy.headers[0]) == {HEADER, b"authorization"}


def test_a_large_body_is_passed_on_as_it_comes(monkeypatch):
    monkeypatch.setattr(request_body, "MOST", 10)
    bodies: list[bytes] = []
    proxy = Proxy(reading(reply(b"yes"), bodies))
    assert ask(proxy, part(CHAT[:20], more=True), part(CHAT[20:])).body == b"yes"
    declared = ((b"content-length", b"99999"),)
    assert ask(proxy, part(CHAT[:20], more=True), part(CHAT[20:]), headers=declared).body == b"yes"
    assert bodies == [CHAT, CHAT] and proxy.wishes == [Wish(), Wish()]


def test_a_client_that_leaves_in_mid_request_costs_nothing():
    proxy = Proxy(dies)
    client = ask(proxy, part(CHAT[:10], more=True), {"type": "http.disconnect"})
    assert (client.told, proxy.wishes) == ([], [])


def test_a_client_that_leaves_while_it_waits_is_not_asked_for_again():
    async def leaves(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    proxy = Proxy(leaves)
    assert ask(proxy, part(CHAT), {"type": "http.disconnect"}).told == []
    assert len(proxy.wishes) == 1


def test_a_body_that_does_not_come_is_refused(monkeypatch):
    monkeypatch.setattr(request_body, "BODY_SECONDS", 0.01)
    assert ask(Proxy(dies), part(b"{", more=True)).status == 408


def counts(requests: int) -> Metrics:
    metrics = Metrics(lambda: ("m", Pulse(completion_tokens=requests)))
    for _ in range(requests):
        metrics.requested("/v1/models", 200)
        metrics.first_token(0.1)
    return metrics


def test_metrics_are_those_of_all_replicas_by_their_names():
    texts = {"a": counts(1).text(), "b": counts(2).text()}

    async def act(scope: Any, receive: Any, send: Any) -> None:
        name = Wish.read(dict(scope["headers"])[HEADER].decode()).replica
        if name not in texts:
            return
        await reply(texts[name])(scope, receive, send)

    client = ask(Proxy(act), path="/llm/metrics", method="GET", replicas=("a", "b", "dead"))
    assert client.status == 200
    assert client.header(b"content-length") == [str(len(client.body)).encode()]
    families = {found.name: found for found in text_string_to_metric_families(client.body.decode())}
    samples = {
        (sample.name, sample.labels["replica"]): sample.value
        for found in families.values()
        for sample in found.samples
        if "le" not in sample.labels
    }
    assert samples["nightherd:http_requests_total", "a"] == 1
    assert samples["nightherd:http_requests_total", "b"] == 2
    assert samples["vllm:generation_tokens_total", "b"] == 2
    assert samples["vllm:time_to_first_token_seconds_count", "b"] == 2
    assert families["nightherd:http_requests"].type == "counter"


def test_metrics_that_need_a_key_are_refused_as_the_replicas_refuse_them():
    client = ask(Proxy(reply(b"{}", status=401)), path="/metrics", method="GET")
    assert (client.status, client.body) == (401, b"{}")
    assert ask(Proxy(dies), path="/metrics", method="GET").status == 503
    assert ask(Proxy(dies), path="/metrics", method="GET", replicas=()).status == 503


def test_gathering_one_text_changes_only_its_labels():
    text = counts(3).text().decode()
    again = gathered({"a": text}).decode()
    plain = again.replace('{replica="a"}', "").replace('replica="a",', "").replace(',replica="a"', "")
    assert sorted(plain.splitlines()) == sorted(text.splitlines())
