"""Tokens in, tokens out: continuous batching over one model. No JSON, no Parquet, no Ray."""
