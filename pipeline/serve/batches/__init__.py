"""OpenAI's files and batches: each batch is a job on the engine that serves."""
