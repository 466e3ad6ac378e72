"""The HTTP service on a Ray cluster: replicas of a model behind Ray Serve."""
