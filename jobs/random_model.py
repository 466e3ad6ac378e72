"""A GGUF with random weights and a vocabulary of any size, to measure what doesn't depend on sense."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import gguf
import numpy as np

LAYERS, WIDTH, HIDDEN, HEADS, CONTEXT = 2, 512, 1024, 8, 2048
# Logits then spread like those of a trained model, with a standard deviation of about 3.
_OUTPUT_SCALE = 3 / WIDTH**0.5
_Q8 = gguf.GGMLQuantizationType.Q8_0


def write_random_model(target: Path, words: int, texts: Sequence[str] = ()) -> None:
    """Writes a llama-like model with `words` tokens to `target`: matrices as Q8_0, vectors as f32.

    texts: some of the tokens; SentencePiece puts together what is a token at each step."""
    writer = gguf.GGUFWriter(target, "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(words)
    _add_vocabulary(writer, words, texts)
    _add_tensors(writer, words)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_vocabulary(writer: gguf.GGUFWriter, words: int, texts: Sequence[str]) -> None:
    letters = [f"<0x{byte:02X}>" for byte in range(256)]
    tokens = ["<unk>", "<s>", "</s>", *letters, *texts]
    tokens += [f"\u2581w{number}" for number in range(words - len(tokens))]
    kinds = [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL]
    kinds += [gguf.TokenType.BYTE] * len(letters)
    kinds += [gguf.TokenType.NORMAL] * (words - len(kinds))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * words)
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)


def _add_tensors(writer: gguf.GGUFWriter, words: int) -> None:
    draw = np.random.default_rng(1)

    def matrix(name: str, rows: int, columns: int, scale: float) -> None:
        values = draw.standard_normal((rows, columns), np.float32) * np.float32(scale)
        writer.add_tensor(f"{name}.weight", gguf.quantize(values, _Q8), raw_dtype=_Q8)

    def vector(name: str) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))

    matrix("token_embd", words, WIDTH, 1.0)
    matrix("output", words, WIDTH, _OUTPUT_SCALE)
    vector("output_norm")
    for layer in range(LAYERS):
        for name in ("attn_norm", "ffn_norm"):
            vector(f"blk.{layer}.{name}")
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            matrix(f"blk.{layer}.{name}", WIDTH, WIDTH, WIDTH**-0.5)
        for name in ("ffn_gate", "ffn_up"):
            matrix(f"blk.{layer}.{name}", HIDDEN, WIDTH, WIDTH**-0.5)
        matrix(f"blk.{layer}.ffn_down", WIDTH, HIDDEN, HIDDEN**-0.5)
