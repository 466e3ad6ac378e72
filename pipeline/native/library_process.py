"""What llama.cpp's library says of itself, asked in a process of its own: loading it may end the process.

`python -m pipeline.native.library_process` writes a `Library` as JSON to its standard output.
"""

from __future__ import annotations

from pipeline.engine.llama.devices import gpu_names, sees_gpu, visible_gpus
from pipeline.engine.llama.kernels import cpu_features
from pipeline.native.library import Device, Library


def main() -> None:
    gpus = visible_gpus()
    devices = [Device(name, gpu.free, gpu.total) for name, gpu in zip(gpu_names(), gpus, strict=True)]
    print(Library(tuple(sorted(cpu_features())), sees_gpu(), tuple(devices)).to_json())


if __name__ == "__main__":
    main()
