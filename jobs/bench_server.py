"""llama-server from the package xllamacpp, in a process of its own: `python bench_server.py SETTINGS`.

SETTINGS is JSON. Prints one line of JSON with its address, then serves until its standard input is
closed. It imports nothing of nightherd, so that it may run in another virtual environment.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import xllamacpp


def start(settings: dict[str, Any]) -> xllamacpp.Server:
    """settings: model, slots, threads, context (tokens of one slot), batch, embeds."""
    params = xllamacpp.CommonParams()
    params.model.path = settings["model"]
    params.hostnames, params.port = ["127.0.0.1"], 0
    params.n_parallel = settings["slots"]
    params.n_ctx = settings["context"] * settings["slots"]
    params.n_batch, params.n_ubatch = max(settings["batch"], 512), settings["batch"]
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = settings["threads"]
    params.embedding = settings["embeds"]
    params.verbosity = 0
    return xllamacpp.Server(params)


if __name__ == "__main__":
    server = start(json.loads(sys.argv[1]))
    about = {
        "address": server.listening_address,
        "version": f"xllamacpp {xllamacpp.__version__}",
        "system": xllamacpp.get_system_info().strip(),
    }
    print(json.dumps(about), flush=True)
    sys.stdin.read()
