"""The HTTP service: OpenAI's routes in front of a service."""
