"""One evening's run of a job, as a scheduler needs it: what its end means, and whether to try again.

    python jobs/night.py --output s3://bucket/out -- ray job submit --working-dir . -- \\
        nightherd run jobs/label.yaml --output s3://bucket/out

Submits the command again until it is done or a limit of the night (limits.stop_at ...) ends it. Exit status:
0 done, 75 the next evening goes on, 1 given up for now, 2 the job is wrong. Needs fsspec alone.
`airflow_dag.py` and `dagster_job.py` use it as a module.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from enum import Enum

import fsspec

GO_ON = 1
"""nightherd's exit status where a job could not be completed: the same command goes on with what is left.
`ray job submit` gives it for any failure of the job."""
WRONG_USE = 2
"""nightherd's exit status where the job file or the command line is wrong: to try again is in vain."""
NOT_YET = 75

Run = Callable[[Sequence[str]], int]
"""Runs a command to its end; its exit status."""


class Night(Enum):
    """How an evening ended."""

    DONE = "every row has its answer"
    LIMIT = "a limit ended it: the next evening goes on"


class Unfinished(Exception):
    """The job could not be completed this time. Submitting it again goes on from what is committed."""


class WrongJob(Exception):
    """Submitting it again is in vain."""


def run(command: Sequence[str]) -> int:
    return subprocess.run(list(command), check=False).returncode


def submit(command: Sequence[str], output: str, run: Run = run) -> Night:
    """Runs the job once. output: its folder, a path or URL. Raises Unfinished, WrongJob."""
    status = run(command)
    if status == WRONG_USE:
        raise WrongJob(f"exit status {status}: the command or its job file is wrong; its message says where")
    if status:
        # 1, or the signal that ended it: nothing that was answered is lost.
        raise Unfinished(f"exit status {status}: submit the same command again")
    return Night.DONE if is_done(output) else Night.LIMIT


def submit_until_done(
    command: Sequence[str],
    output: str,
    tries: int = 5,
    pause: float = 60.0,
    run: Run = run,
    wait: Callable[[float], None] = time.sleep,
) -> Night:
    """Runs the job again each time that it ends unfinished. tries: so many at most, with `pause` seconds
    between them. Raises Unfinished after the last one, WrongJob at once."""
    for left in reversed(range(tries)):
        try:
            return submit(command, output, run)
        except Unfinished:
            if not left:
                raise
            wait(pause)
    raise ValueError(f"{tries} tries: expected 1 or more")


def is_done(output: str) -> bool:
    """Whether the job has written _SUCCESS: a run that a limit ended has not."""
    files, path = fsspec.core.url_to_fs(output)
    files.invalidate_cache()
    return bool(files.exists(f"{path.rstrip('/')}/_SUCCESS"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--output", required=True)
    parser.add_argument("--tries", type=int, default=5)
    parser.add_argument("--pause", type=float, default=60.0, metavar="SECONDS")
    parser.add_argument("command", nargs="+")
    asked = parser.parse_args()
    try:
        night = submit_until_done(asked.command, asked.output, asked.tries, asked.pause)
    except (Unfinished, WrongJob) as error:
        print(error, file=sys.stderr)
        return WRONG_USE if isinstance(error, WrongJob) else GO_ON
    print(night.value)
    return 0 if night is Night.DONE else NOT_YET


if __name__ == "__main__":
    sys.exit(main())
