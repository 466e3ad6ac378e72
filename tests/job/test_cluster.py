"""How machines are shared out among workers; what Ray itself says of shares is in `test_ray_gpus.py`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import ClusterConfig, make_job
from pipeline.errors import ConfigError
from pipeline.job.actors.cluster import MOST_CPUS, Node, Slot, check_room, share_out

GPU_NODES = st.lists(
    st.builds(Node, cpus=st.integers(8, 128), gpus=st.integers(1, 8)), min_size=1, max_size=4
)


@pytest.mark.parametrize(
    ("gpus", "on_four"), [(1, 4), (0.5, 8), (0.4, 8), (2 / 3, 4), (1 / 3, 12), (2, 2), (3, 1), (5, 0)]
)
def test_a_share_is_of_one_gpu(gpus, on_four):
    assert Slot(cpus=0.1, gpus=gpus).fits(Node(64, 4)) == on_four


@given(machines=GPU_NODES)
def test_by_default_every_gpu_has_a_worker(machines):
    slot, count = share_out(ClusterConfig(), machines)
    assert slot.gpus == 1
    assert count == sum(node.gpus for node in machines) == sum(slot.fits(node) for node in machines)
    assert slot.cpus <= MOST_CPUS


@given(machines=GPU_NODES, actors=st.integers(1, 60))
def test_as_many_workers_as_were_asked_for_find_a_gpu(machines, actors):
    slot, count = share_out(ClusterConfig(actors=actors), machines)
    assert count == actors
    assert sum(Slot(0.01, slot.gpus).fits(node) for node in machines) >= actors


def test_without_gpus_workers_share_the_cpus():
    assert share_out(ClusterConfig(), [Node(32)]) == (Slot(MOST_CPUS), 4)
    assert share_out(ClusterConfig(gpus_per_actor=0), [Node(8, 1)]) == (Slot(8), 1)


def test_a_worker_that_fits_on_no_machine_is_refused():
    with pytest.raises(ConfigError, match="no machine has 1 CPUs and 2 GPUs"):
        check_room(Slot(1, 2), [Node(8, 1), Node(8, 1)])


def test_more_than_one_gpu_comes_whole():
    tree = {"model": {"path": "m"}, "input": {"path": "i"}, "output": {"path": "o"}}
    with pytest.raises(ConfigError, match=r"cluster\.gpus_per_actor.*whole number of GPUs \(got 1\.5\)"):
        make_job(tree, [("cluster.gpus_per_actor", 1.5)], "job")
