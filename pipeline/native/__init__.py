"""llama.cpp on this machine: what it was built for, and whether it works, tried before rows depend on it."""
