"""Small deterministic models behind the engine's protocols, for tests without llama.cpp."""
