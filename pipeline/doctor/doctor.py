"""Examines this machine, or each machine of the cluster that runs here or at RAY_ADDRESS."""

from __future__ import annotations

import os
from dataclasses import dataclass

from pipeline.config import JobConfig
from pipeline.doctor.check import Check, Examination
from pipeline.doctor.data import examine_data
from pipeline.doctor.machine import examine_machine
from pipeline.doctor.model import examine_model
from pipeline.errors import WorkerError
from pipeline.job.actors.cluster import Node, share_out
from pipeline.job.actors.examination import join_cluster, leave_cluster, on_each_machine, this_machine


@dataclass(frozen=True, slots=True)
class Doctor:
    """Examines the machine that it is called on. job: None, where only the machine is asked about."""

    job: JobConfig | None

    def __call__(self, node: Node) -> list[Check]:
        checks = examine_machine()
        if self.job is None or not node.cpus:  # The head of a cluster often has no place for workers.
            return checks
        gpus = _gpus(checks)
        slot, _ = share_out(self.job.cluster, [Node(node.cpus, min(node.gpus, gpus))])
        return [*checks, *examine_model(self.job, threads=slot.threads, gpus=slot.gpus)]


def examine(job: JobConfig | None) -> Examination:
    """Everything that can be said before a job is run."""
    doctor = Doctor(job)
    if not join_cluster():
        here = Node(float(os.cpu_count() or 1), float("inf"))
        return Examination({this_machine(): doctor(here)}, examine_data(job) if job else [])
    try:
        found = on_each_machine(doctor)
    finally:
        leave_cluster()
    machines = {name: _dead(c) if isinstance(c, WorkerError) else c for name, c in found.items()}
    return Examination(machines, examine_data(job) if job else [])


def _gpus(checks: list[Check]) -> int:
    """The GPUs that llama.cpp can use."""
    return next(len(check.facts["llama_cpp"]) for check in checks if check.subject == "GPUs")


def _dead(error: WorkerError) -> list[Check]:
    return [Check("machine", "no answer", "problem", str(error))]
