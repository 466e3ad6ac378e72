"""The files by which clusters are started are what Kubernetes, KubeRay, Ray and Docker take, and agree."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import kubernetes_validate
import pytest
import yaml
from jsonschema import Draft202012Validator
from pydantic import BaseModel, ConfigDict, Field
from ray.autoscaler._private.util import prepare_config, validate_config
from typer.main import get_command

from pipeline.cli import app
from pipeline.config import load_job

ROOT = Path(__file__).parents[2]
CONFIG_MAP, RAY_JOB = yaml.safe_load_all((ROOT / "rayjob.yaml").read_text())
CLUSTER = yaml.safe_load((ROOT / "cluster.yaml").read_text())
SPEC = RAY_JOB["spec"]
GROUPS = [SPEC["rayClusterSpec"]["headGroupSpec"], *SPEC["rayClusterSpec"]["workerGroupSpecs"]]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Group(Strict):
    rayStartParams: dict[str, str]
    template: dict[str, Any]


class Workers(Group):
    groupName: str = Field(pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$")
    minReplicas: int = Field(ge=0)
    replicas: int
    maxReplicas: int


class Autoscaler(Strict):
    version: Literal["v1", "v2"]
    idleTimeoutSeconds: int


class RayCluster(Strict):
    rayVersion: str
    enableInTreeAutoscaling: bool
    autoscalerOptions: Autoscaler
    headGroupSpec: Group
    workerGroupSpecs: list[Workers]


class RayJobSpec(Strict):
    """The fields of KubeRay's RayJob, version v1, that the manifest uses."""

    entrypoint: str
    entrypointNumCpus: int | float
    backoffLimit: int
    shutdownAfterJobFinishes: bool
    ttlSecondsAfterFinished: int
    rayClusterSpec: RayCluster


def test_the_manifest_is_a_ray_job():
    assert (RAY_JOB["apiVersion"], RAY_JOB["kind"]) == ("ray.io/v1", "RayJob")
    workers = RayJobSpec.model_validate(SPEC).rayClusterSpec.workerGroupSpecs
    assert all(group.minReplicas <= group.replicas <= group.maxReplicas for group in workers)


def test_the_manifest_fits_kuberays_own_schema():
    """KUBERAY_CRD names a file, ray.io_rayjobs.yaml of KubeRay's, which is too large to be kept here."""
    if "KUBERAY_CRD" not in os.environ:
        pytest.skip("KUBERAY_CRD doesn't name KubeRay's file of the CRD")
    crd = yaml.load(Path(os.environ["KUBERAY_CRD"]).read_text(), yaml.CSafeLoader)
    (version,) = [found for found in crd["spec"]["versions"] if found["name"] == "v1"]
    schema = strictly(version["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}
    errors = Draft202012Validator(schema).iter_errors(RAY_JOB)
    assert [(list(error.absolute_path), error.message) for error in errors] == []


def strictly(schema: Any) -> Any:
    """As the API server takes a schema: it drops, or refuses, what the schema doesn't name."""
    if isinstance(schema, list):
        return [strictly(inner) for inner in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    found = {key: strictly(inner) for key, inner in schema.items()}
    if "properties" in found and not found.get("x-kubernetes-preserve-unknown-fields"):
        found.setdefault("additionalProperties", False)
    return found


@pytest.mark.parametrize("group", GROUPS, ids=["head", "workers"])
def test_the_pods_are_what_kubernetes_takes(group):
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": group["template"]["spec"]}
    kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)
    kubernetes_validate.validate(CONFIG_MAP, kubernetes_validate.latest_version(), strict=True)


def test_the_job_in_the_manifest_is_a_job_and_its_entrypoint_runs_it(tmp_path):
    file = tmp_path / "job.yaml"
    file.write_text(CONFIG_MAP["data"]["job.yaml"])
    job = load_job(file)
    (workers,) = SPEC["rayClusterSpec"]["workerGroupSpecs"]
    assert job.cluster.actors == workers["maxReplicas"]
    assert (
        str(job.cluster.gpus_per_actor) == container(workers)["resources"]["limits"]["nvidia.com/gpu"] + ".0"
    )
    mount = container(GROUPS[0])["volumeMounts"][0]["mountPath"]
    assert SPEC["entrypoint"] == f"nightherd run {mount}/job.yaml"
    assert takes(SPEC["entrypoint"])


def container(group: dict[str, Any]) -> dict[str, Any]:
    (found,) = group["template"]["spec"]["containers"]
    return dict(found)


def takes(command: str) -> bool:
    """Whether the command line takes this command; raises where it doesn't."""
    _, name, *arguments = shlex.split(command)
    found = get_command(app).commands[name]  # type: ignore[attr-defined]
    return bool(found.make_context(name, arguments).params)


def test_the_commands_in_the_files_and_in_the_readme_are_commands():
    texts = [
        (ROOT / "README.md").read_text(),
        (ROOT / "docs/clusters.md").read_text(),
        re.sub(r"(?m)^#", "", (ROOT / "cluster.yaml").read_text()),
    ]
    joined = " ".join(re.sub(r"\\\n *", "", text) for text in texts).split("\n")
    commands = [
        command for line in joined for command in re.findall(r"ray job submit .*-- *(nightherd .*)", line)
    ]
    assert len(commands) >= 3
    assert all(map(takes, commands))


def test_one_version_of_ray_is_asked_for_everywhere():
    dockerfile = (ROOT / "Dockerfile").read_text()
    versions = re.findall(r"RAY_VERSION=([\d.]+)", dockerfile)
    versions += re.findall(r"ray\[default\]==([\d.]+)", (ROOT / "cluster.yaml").read_text())
    versions.append(SPEC["rayClusterSpec"]["rayVersion"])
    assert len(versions) == 3
    assert len(set(versions)) == 1


def test_the_dockerfile_is_sound_and_its_files_are_there():
    done = subprocess.run(["hadolint", "Dockerfile"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")
    shown = set(re.findall(r"(?m)^!(.+)$", (ROOT / ".dockerignore").read_text()))
    copied = {name for line in copies() for name in line.split()[1:-1]}
    assert copied == shown
    assert all((ROOT / name).exists() for name in copied)


def copies() -> Iterator[str]:
    """The lines that copy from the checkout."""
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    return (line for line in lines if line.startswith("COPY") and "--from" not in line)


def test_ray_takes_the_cluster_file():
    prepared = prepare_config(yaml.safe_load((ROOT / "cluster.yaml").read_text()))
    validate_config(prepared)
    assert prepared["available_node_types"]["spot_gpu"]["resources"] == {"CPU": 8, "GPU": 1}
