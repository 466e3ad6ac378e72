"""What Ray Serve is told of the service."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ray import serve
from ray.serve.api import RunTarget, run_many
from ray.serve.config import (
    AutoscalingConfig,
    ControllerOptions,
    HTTPOptions,
    ProxyLocation,
    RequestRouterConfig,
)
from ray.serve.schema import ApplicationStatus, ApplicationStatusOverview, LoggingConfig

from pipeline.config import ServeConfig
from pipeline.serve.cluster.replica import Plan, Replica
from pipeline.serve.cluster.router import BeginningRouter
from pipeline.serve.serving import Address

NAME = "nightherd"
_PROXY = {"RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "pipeline.serve.cluster.middleware.middlewares"}
_MOST_AT_ONCE = 1_000_000
"""Requests of one replica, as far as Serve is concerned: its door knows how many it can take."""
_HEALTH_EVERY = 2.0
"""Seconds. After three failures in a row, Serve replaces a replica."""
_ROUTER = {"request_router_class": f"{BeginningRouter.__module__}.{BeginningRouter.__qualname__}"}
_LOGS = LoggingConfig(enable_access_log=False)


def start_serve(address: Address, *, everywhere: bool) -> None:
    """Starts Serve's own processes. everywhere: a proxy on each machine with a replica; else on the head."""
    serve.start(
        proxy_location=ProxyLocation.EveryNode if everywhere else ProxyLocation.HeadOnly,
        http_options=HTTPOptions(host=address.host, port=address.port),
        logging_config=_LOGS,
        # The proxies are children of the controller, and get its environment.
        controller_options=ControllerOptions(runtime_env={"env_vars": _PROXY}),
    )


def end_serve() -> None:
    """Ends Serve and all that it runs on this cluster, if there is anything."""
    shutdown: Callable[[], None] = serve.shutdown
    shutdown()


def deploy(plan: Plan) -> None:
    """Returns at once: `overview` tells what becomes of it."""
    config, slot = plan.job.serve, plan.slot
    deployment: Any = serve.deployment(serve.ingress()(Replica))
    deployment = deployment.options(
        name="replica",
        ray_actor_options={"num_cpus": slot.cpus, "num_gpus": slot.gpus},
        max_ongoing_requests=_MOST_AT_ONCE,
        graceful_shutdown_timeout_s=config.grace,
        graceful_shutdown_wait_loop_s=min(0.5, config.grace),
        health_check_period_s=_HEALTH_EVERY,
        request_router_config=RequestRouterConfig.model_validate(_ROUTER),
        logging_config=_LOGS,
        **_how_many(config),
    )
    run_many(
        [RunTarget(deployment.bind(plan), name=NAME, route_prefix="/")],
        wait_for_ingress_deployment_creation=False,
        wait_for_applications_running=False,
    )


def take_away() -> None:
    """Returns at once; replicas end when what they answer has ended, or after `serve.grace`."""
    serve.delete(NAME, _blocking=False)


def _how_many(config: ServeConfig) -> dict[str, Any]:
    wanted = config.replicas
    if isinstance(wanted, int):
        return {"num_replicas": wanted}
    scaling = AutoscalingConfig(
        min_replicas=wanted.min,
        initial_replicas=wanted.min,
        max_replicas=wanted.max,
        target_ongoing_requests=wanted.requests,
    )
    return {"autoscaling_config": scaling}


def overview() -> ApplicationStatusOverview | None:
    """How the service is; None where there is none (any more). Raises where Serve doesn't answer."""
    return serve.status().applications.get(NAME)


def running(seen: ApplicationStatusOverview) -> int:
    """Replicas that answer."""
    states = (found.replica_states for found in seen.deployments.values())
    return sum(count for state in states for name, count in state.items() if name == "RUNNING")


def failed(seen: ApplicationStatusOverview) -> str:
    """Why Serve has given up; "" while it hasn't."""
    if seen.status != ApplicationStatus.DEPLOY_FAILED:
        return ""
    return next((found.message for found in seen.deployments.values() if found.message), seen.message)


def others() -> list[str]:
    """The applications on this cluster that are not ours."""
    return sorted(serve.status().applications.keys() - {NAME})
