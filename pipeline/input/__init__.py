"""The input: its files, shards and chunks, and how their rows are read."""
