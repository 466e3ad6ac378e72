"""Where Serve's proxies find what stands in front of them: see `application`."""

from __future__ import annotations

from starlette.middleware import Middleware

from pipeline.serve.cluster.front import Front
from pipeline.serve.cluster.placement import known_replicas


def middlewares() -> list[Middleware]:
    return [Middleware(Front, known_replicas)]
