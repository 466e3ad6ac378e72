"""Serve's request router for replicas that keep what prompts begin with.

It runs in Serve's proxies. There, only headers are known of a request, so `front.Front` has put the hashes of
its beginning into one. Serve copies this module by value: what a process has only one of is kept elsewhere.
"""

from __future__ import annotations

from asyncio import Future
from typing import Any

from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica

from pipeline.serve.cluster.placement import Placement
from pipeline.serve.cluster.wish import Wish


class BeginningRouter(RequestRouter):
    """Requests that begin alike go to one replica, as long as it has not much more to do than others."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._placement = Placement()
        self._promised: dict[Future[Any], str] = {}
        super().__init__(*args, **kwargs)

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Ranks of one replica each: the next is asked where one takes no more."""
        if pending_request is not None:
            # A pause, once all have refused.
            pending_request.routing_context.should_backoff = True
        wish = Wish.read(pending_request.metadata.session_id) if pending_request else Wish()
        by_name = {replica.replica_id.unique_id: replica for replica in candidate_replicas}
        if wish.replica in by_name:
            return [[by_name[wish.replica]]]
        if pending_request is None:
            return [[by_name[name]] for name in self._placement.order(by_name, wish.beginnings)]
        self._withdraw(pending_request.future)
        order = self._placement.order(by_name, wish.beginnings)
        if order:
            self._promise(pending_request.future, order[0])
        return [[by_name[name]] for name in order]

    def _promise(self, chosen: Future[Any], name: str) -> None:
        """Requests that come at once would all find the same replica idle. chosen: done when the request is
        sent, or its client has gone."""
        self._promised[chosen] = name
        self._placement.promised(name)
        chosen.add_done_callback(self._withdraw)

    def _withdraw(self, chosen: Future[Any]) -> None:
        if name := self._promised.pop(chosen, None):
            self._placement.settled(name)

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        super().update_replicas(replicas)
        self._placement.keep([replica.replica_id.unique_id for replica in replicas])

    def on_replica_actor_died(self, replica_id: ReplicaID) -> None:
        super().on_replica_actor_died(replica_id)
        self._placement.keep([known.unique_id for known in self.curr_replicas])

    def on_send_request(self, replica_id: ReplicaID) -> None:
        super().on_send_request(replica_id)
        self._placement.sent(replica_id.unique_id)

    def on_new_queue_len_info(self, replica_id: ReplicaID, num_ongoing_requests: int) -> None:
        super().on_new_queue_len_info(replica_id, num_ongoing_requests)
        self._placement.told(replica_id.unique_id, num_ongoing_requests)

    def on_request_completed(self, replica_id: ReplicaID, internal_request_id: str) -> None:
        super().on_request_completed(replica_id, internal_request_id)
        self._placement.done(replica_id.unique_id)

    def on_request_routed(
        self, pending_request: PendingRequest, replica_id: ReplicaID, result: object
    ) -> None:
        wish = Wish.read(pending_request.metadata.session_id)
        self._placement.saw(replica_id.unique_id, wish.beginnings)
