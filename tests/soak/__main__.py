"""Replays seeds of the soak: python -m tests.soak SEED [SEED | FIRST:STOP ...]

One seed prints its log, event by event; several print a line for each that fails. Status 1 if any does.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

HASH_SEED = "0"
"""Python orders sets of strings by a seed of its own."""


def main(arguments: list[str]) -> int:
    from tests.soak.soak import soak

    seeds = [seed for argument in arguments for seed in _seeds(argument)]
    failed = 0
    for seed in seeds:
        outcome = soak(seed)
        if len(seeds) == 1:
            print("\n".join(outcome.log))
        if outcome.problem:
            failed += 1
            print(f"seed {seed}: {outcome.problem}", flush=True)
    print(f"{len(seeds)} seeds, {failed} failed")
    return bool(failed)


def _seeds(argument: str) -> Iterator[int]:
    first, colon, stop = argument.partition(":")
    yield from range(int(first), int(stop)) if colon else [int(first)]


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != HASH_SEED:
        os.environ["PYTHONHASHSEED"] = HASH_SEED
        os.execv(sys.executable, [sys.executable, "-m", "tests.soak", *sys.argv[1:]])
    sys.exit(main(sys.argv[1:]))
