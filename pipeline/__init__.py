"""nightherd: batch inference for GGUF models over Parquet, on Ray."""

from importlib.metadata import version

__version__ = version("nightherd")
