"""The output folder: what is committed, and what can be told from it."""
