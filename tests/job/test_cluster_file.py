"""cluster.yaml's node types start as Ray's autoscaler would start them, and a job runs on them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from ray._private.services import get_node_ip_address

from pipeline.output.verify import verify
from tests.faults.machines import kill, parents
from tests.job import test_ray, test_ray_gpus
from tests.job.test_ray import Case
from tests.job.test_ray_gpus import Sights

ROOT = Path(__file__).parents[2]
HEAD = "ray.head.default"
"""What Ray's fake provider calls the head's type."""

# Processes are what this machine has already: nothing is installed.
COMMANDS = "initialization setup head_setup worker_setup head_start_ray worker_start_ray".split()


def fake_cluster(address: str) -> dict[str, Any]:
    """cluster.yaml's types and limits, on processes of this machine instead of AWS's."""
    cluster = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    types = {
        name: {"node_config": {}} | {key: kind[key] for key in kind if key != "node_config"}
        for name, kind in cluster["available_node_types"].items()
    }
    head = types.pop(cluster["head_node_type"])
    return {
        "cluster_name": cluster["cluster_name"],
        "max_workers": cluster["max_workers"],
        "idle_timeout_minutes": cluster["idle_timeout_minutes"],
        "provider": {"type": "fake_multinode", "gcs_address": address, "disable_node_updaters": True},
        "available_node_types": types | {HEAD: head | {"max_workers": 0}},
        "head_node_type": HEAD,
        "auth": cluster["auth"],
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "upscaling_speed": 1.0,
        **{f"{kind}_commands": [] for kind in COMMANDS},
    }


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a cluster that has a head alone, and grows."""
    # It makes no token for this user, and asks for none.
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    found = f"{get_node_ip_address()}:{port}"
    (tmp_path / "cluster.json").write_text(json.dumps(fake_cluster(found)))
    options = [f"--port={port}", f"--autoscaling-config={tmp_path}/cluster.json", "--num-cpus=0"]
    head = subprocess.Popen(
        [
            str(Path(sys.executable).with_name("ray")),
            "start",
            "--head",
            "--block",
            "--include-dashboard=false",
            *options,
        ],
        env=os.environ
        | {
            "RAY_FAKE_CLUSTER": "1",
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            "PYTHONPATH": str(ROOT),
        },
        stdout=subprocess.DEVNULL,
    )
    yield found
    ray.shutdown()
    own = descendants(head.pid)
    head.terminate()
    head.wait(60)
    for pid in own:
        kill(pid)


def descendants(pid: int) -> list[int]:
    children = [child for child, parent in parents() if parent == pid]
    return children + [below for child in children for below in descendants(child)]


@pytest.mark.slow
def test_a_job_runs_on_the_nodes_of_the_cluster_file(tmp_path, address):
    for module in (test_ray, test_ray_gpus):
        ray.cloudpickle.register_pickle_by_value(module)
    ray.init(address=address, log_to_driver=False, logging_level="error")
    assert [node["Resources"].get("CPU", 0) for node in ray.nodes()] == [0]
    case = Case(tmp_path)
    for shard in range(8):
        case.shard(f"s{shard}", ["row"] * 40)
    # As cluster.yaml says it to its users.
    summary = case.run(workers=Sights, cluster={"actors": 2, "gpus_per_actor": 1})
    assert (summary.totals.rows, summary.totals.failed) == (320, 0)
    assert verify(str(case.output), deep=True).problems == []
    grown = [node["Resources"] for node in ray.nodes() if node["Resources"].get("GPU")]
    assert 1 <= len(grown) <= 2
    kind = fake_cluster(address)["available_node_types"]["spot_gpu"]["resources"]
    assert all({name: node.get(name) for name in kind} == kind for node in grown)
