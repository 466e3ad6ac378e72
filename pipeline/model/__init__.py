"""The GGUF on this node: fetched, checked, requantised."""
