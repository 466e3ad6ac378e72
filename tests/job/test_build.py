"""A worker is built only where it can do what the job was promised."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pipeline.config import ClusterConfig, EngineConfig, JobConfig
from pipeline.engine.llama import devices as llama_devices
from pipeline.errors import ConfigError, ModelError, WorkerError
from pipeline.job import build
from pipeline.job.actors import staff
from pipeline.job.actors.cluster import Node
from pipeline.native.library import Library
from pipeline.native.own_process import Died
from pipeline.output.fingerprint import Fingerprint

MACHINES = [Node(8, 1)]


def worker_for(tmp_path, **engine: object) -> None:
    paths = {name: {"path": str(tmp_path / name)} for name in ("model", "input", "output")}
    job = JobConfig.model_validate({**paths, "engine": EngineConfig.model_validate(engine)})
    build.build_worker(job, Fingerprint({}), threads=1, gpus=1)


@pytest.fixture(params=[True, False], ids=["a GPU", "no GPU"])
def gpu(request, monkeypatch) -> bool:
    for module in (build, llama_devices):
        monkeypatch.setattr(module, "sees_gpu", lambda: request.param)
    return bool(request.param)


def test_a_gpu_that_llama_cpp_can_not_use_stops_the_job(tmp_path, gpu):
    # Where the GPU is usable, the next thing that is missing is the model.
    expected = pytest.raises(ModelError) if gpu else pytest.raises(ConfigError, match="gpus_per_actor")
    with expected:
        worker_for(tmp_path)


def test_a_model_that_is_to_stay_on_the_cpu_needs_no_gpu(tmp_path, gpu):
    with pytest.raises(ModelError):
        worker_for(tmp_path, gpu_layers=0)


def test_auto_leaves_out_a_gpu_that_llama_cpp_can_not_use(monkeypatch, gpu):
    monkeypatch.setattr(staff, "output_of", lambda module: Library((), gpu, ()).to_json())
    chosen = staff.usable(ClusterConfig(), MACHINES)
    assert chosen.gpus_per_actor == ("auto" if gpu else 0)


@pytest.mark.parametrize("failure", [Died("died of SIGILL"), WorkerError("killed by SIGKILL")])
def test_a_library_that_dies_when_it_is_asked_leaves_the_verdict_to_the_workers(monkeypatch, failure):
    def die(module: str) -> str:
        raise failure

    monkeypatch.setattr(staff, "output_of", die)
    assert staff.usable(ClusterConfig(), MACHINES) == ClusterConfig()


def test_the_driver_does_not_load_llama_cpp_to_look_for_gpus():
    code = (
        "import sys; from pipeline.config import ClusterConfig; "
        "from pipeline.job.actors import cluster, staff; "
        "staff.usable(ClusterConfig(), [cluster.Node(8, 1)]); sys.exit('llama_cpp' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("cluster", [ClusterConfig(gpus_per_actor=1), ClusterConfig(gpus_per_actor=0)])
def test_what_the_job_says_of_gpus_stands(cluster, gpu):
    assert staff.usable(cluster, MACHINES) == cluster


def test_llama_cpp_sees_a_gpu_exactly_if_it_can_say_how_large_it_is():
    cards = llama_devices.visible_gpus()
    assert llama_devices.sees_gpu() == bool(cards)
    assert all(0 <= card.free <= card.total and card.total for card in cards)


def test_memory_is_read_from_the_device_itself(monkeypatch):
    # Every machine has one device, its CPU, whose memory is known from elsewhere.
    monkeypatch.setattr(llama_devices, "_GPU", 0)
    [cpu] = llama_devices.visible_gpus()
    assert cpu.total == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < cpu.free <= cpu.total
