"""The numbers of an actor's engine: they fit the memory, and a GPU's memory is its own."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import EngineConfig
from pipeline.engine.blocks import BLOCK
from pipeline.engine.settings import (
    EngineSettings,
    Gpu,
    ModelTraits,
    fit,
    gpu_cache_memory,
    gpu_layers,
)
from pipeline.errors import ConfigError

GIB = 1 << 30
# 32 layers with 8 KV heads of 128, as a model of 8 B parameters has: 128 KiB a token as f16.
EIGHT_B = ModelTraits(131072, 2 * 32 * 8 * 128, is_recurrent=False, has_window=False, pooling="")
CELL = EIGHT_B.cell_values * 2


def fitted(*, on_gpu: bool, memory: int, **engine: object) -> EngineSettings:
    config = EngineConfig.model_validate(engine)
    return fit(config, EIGHT_B, threads=8, on_gpu=on_gpu, memory=memory)


@given(memory=st.integers(0, 1 << 40), on_gpu=st.booleans(), context=st.sampled_from([512, 4096, 32768]))
def test_the_cache_fits_its_memory_unless_a_single_row_does_not(memory, on_gpu, context):
    settings = fitted(on_gpu=on_gpu, memory=memory, context=context)
    least = settings.all_cells if settings.slots == 1 else context
    assert settings.all_cells <= max(least, memory // CELL)
    assert settings.cells >= context


@given(memory=st.integers(0, 1 << 40))
def test_rows_that_share_their_cells_keep_their_slots_when_memory_is_short(memory):
    assert fitted(on_gpu=True, memory=memory).slots == 64
    assert fitted(on_gpu=False, reproducible=False, memory=memory).slots == 16


def test_streams_are_as_many_as_the_memory_holds():
    for slots in (1, 3, 8, 16):
        assert fitted(on_gpu=False, memory=slots * (4096 + BLOCK) * CELL).slots == slots


@st.composite
def cards(draw: st.DrawFn) -> list[Gpu]:
    totals = [size * GIB for size in draw(st.lists(st.integers(4, 141), min_size=1, max_size=4))]
    return [Gpu(draw(st.integers(0, total)), total) for total in totals]


@given(cards=cards(), weights=st.integers(0, 100 * GIB))
def test_a_cache_never_takes_what_is_not_free(cards, weights):
    assert 0 <= gpu_cache_memory(cards, len(cards), weights) <= sum(card.free for card in cards)


@given(total=st.integers(4, 141), weights=st.integers(0, 70 * GIB), actors=st.integers(1, 4))
def test_actors_that_share_a_gpu_leave_each_other_their_part(total, weights, actors):
    # The first one to look sees the whole GPU free but for its own weights.
    card = Gpu(max(0, total * GIB - weights), total * GIB)
    cache = gpu_cache_memory([card], 1 / actors, weights)
    assert cache == 0 or actors * (weights + cache) <= total * GIB


def test_a_gpu_of_its_own_is_used_but_for_a_quarter():
    assert gpu_cache_memory([Gpu(16 * GIB, 24 * GIB)], 1, 8 * GIB) == 12 * GIB
    assert gpu_cache_memory([Gpu(16 * GIB, 24 * GIB)] * 2, 2, 16 * GIB) == 24 * GIB


@pytest.mark.parametrize(
    ("asked", "on_gpu", "layers"), [("auto", True, -1), ("auto", False, 0), (10, True, 10), (0, True, 0)]
)
def test_layers_go_to_the_gpu_that_the_actor_has(asked, on_gpu, layers):
    assert gpu_layers(EngineConfig(gpu_layers=asked), on_gpu=on_gpu) == layers


def test_reproducible_rows_are_refused_where_they_are_not_promised():
    with pytest.raises(ConfigError, match="on the CPU only"):
        fitted(on_gpu=True, memory=GIB, reproducible=True)
    with pytest.raises(ConfigError, match="recurrent or sliding-window"):
        traits = replace(EIGHT_B, has_window=True)
        fit(EngineConfig(reproducible=True), traits, threads=1, on_gpu=False, memory=GIB)


def test_a_context_above_the_models_is_refused():
    with pytest.raises(ConfigError, match="at most 131072 tokens"):
        fitted(on_gpu=False, memory=GIB, context=131073)
