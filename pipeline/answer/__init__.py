"""Answers as columns, and as OpenAI's bodies."""
