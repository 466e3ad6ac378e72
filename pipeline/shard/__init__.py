"""Shards and their chunks: planned, read, put together."""
