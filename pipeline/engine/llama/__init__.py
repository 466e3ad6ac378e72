"""llama.cpp behind the engine's protocols. Here and in `native/` alone llama_cpp is imported."""
