"""Reproducible calls: of shapes that llama.cpp rounds alike, and each token always in the same kind."""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from itertools import groupby

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.engine.blocks import BLOCK, TURN_HEADER, block_start, whole_blocks
from pipeline.engine.engine import Engine
from pipeline.engine.fake import EOS, FakeModel, FakeVocabulary
from pipeline.engine.model import Batch
from pipeline.engine.sampling import SamplingParams, new_sampler
from pipeline.engine.sequence import Sequence
from pipeline.engine.text import TextStream
from tests.engine.choice_guide import ChoiceGuide, labels_of

VOCABULARY = FakeVocabulary()
CONTROL = np.array([256, 258], np.int32)
TOKENS = st.lists(st.sampled_from([[1] * 50, [1] * 7, [2], [256], [258]]), min_size=1, max_size=20).map(
    lambda runs: [token for run in runs for token in run]
)

# Tokens are few, so that beginnings of many lengths are shared.
PROMPTS = st.lists(
    st.builds(
        lambda system, text: [*system, *text],
        st.sampled_from([[], [7] * 40, [7] * 80, [7] * 200, [7] * 30 + [EOS] + [8] * 90]),
        st.lists(st.sampled_from([7, 8]), min_size=1, max_size=90),
    ),
    min_size=1,
    max_size=10,
)


class WatchedModel(FakeModel):
    """Its calls keep to the rules. kinds: for each cell, whether it was computed in a whole block."""

    def watch(self) -> dict[int, list[bool]]:
        kinds: dict[int, list[bool]] = defaultdict(list)
        share, forget = self.share, self.forget

        def check(batch: Batch) -> None:
            for part in parts(batch):
                check_part(part)
                for sequence, count, _ in part:
                    kinds[sequence] += [count >= BLOCK] * count

        def sharing(source: int, target: int, length: int) -> None:
            share(source, target, length)
            kinds[target] = kinds[source][:length]

        def forgetting(sequence: int, start: int = 0) -> None:
            forget(sequence, start)
            del kinds[sequence][start:]

        self.fails, self.share, self.forget = check, sharing, forgetting
        return kinds


def parts(batch: Batch) -> list[list[tuple[int, int, int]]]:
    """The parts in which llama.cpp computes a batch: sequence id, tokens, and wanted logits."""
    found: list[list[tuple[int, int, int]]] = []
    for sequence, group in groupby(zip(batch.sequence_ids, batch.wants_logits, strict=True), lambda t: t[0]):
        wants = [wanted for _, wanted in group]
        if not found or sequence != found[-1][-1][0] + 1:
            found.append([])
        found[-1].append((sequence, len(wants), sum(wants)))
    return found


def check_part(part: list[tuple[int, int, int]]) -> None:
    counts = {count for _, count, _ in part}
    assert len(counts) == 1, "streams of one part get as many tokens"
    for total in (len(part) * counts.pop(), sum(wants for _, _, wants in part)):
        assert total % 4 == 0 and total != 4


def run(prompts: list[list[int]], order: list[int], slots: int, preempt: int) -> list[tuple[object, ...]]:
    """For each prompt: its text, and the kind of call that each of its tokens was computed in."""
    model = WatchedModel(split=True, max_sequences=slots, context=512, batch_size=256, max_outputs=128)
    kinds = model.watch()
    engine = Engine(model, slots=slots, step_tokens=128, reproducible=True)
    found: dict[int, tuple[object, ...]] = {}
    for at in order:
        row = new_row(prompts[at], at)
        row.on_finish = lambda outcome, row=row, at=at: found.__setitem__(
            at, (outcome.text, tuple(kinds[row.slot][: len(row.beginning)]))
        )
        engine.submit([engine.prepare(row)])
    steps = 0
    while engine.busy:
        engine.step()
        steps += 1
        if steps % preempt == 0 and steps < 60:
            engine._preempt()
    return [found[at] for at in range(len(prompts))]


def new_row(prompt: list[int], at: int) -> Sequence:
    sampler = partial(new_sampler, SamplingParams(temperature=1.0, seed=at), prompt, VOCABULARY)
    choices = (b"yes" * 3, b"yes" * 30, b"no")
    guide = ChoiceGuide(choices, labels=labels_of(choices) if at % 2 else None) if at % 3 == 2 else None
    echo = at % 5 == 4
    return Sequence(
        prompt,
        12,
        sampler,
        TextStream(VOCABULARY.piece),
        print,
        guide=guide,
        echo=echo,
        logprobs=1 if echo else None,
    )


@settings(max_examples=150)
@given(
    prompts=PROMPTS,
    slots=st.integers(1, 13),
    preempt=st.integers(3, 50),
    random=st.randoms(use_true_random=False),
)
def test_a_token_is_computed_in_the_same_kind_of_call_in_every_schedule(prompts, slots, preempt, random):
    order = list(range(len(prompts)))
    plain = run(prompts, order, 1, 1000)
    random.shuffle(order)
    assert run(prompts, order, slots, preempt) == plain


@given(TOKENS, st.integers(0, 399))
def test_a_prompt_continues_at_the_start_of_a_block_or_among_single_tokens(tokens, place):
    blocks = whole_blocks(np.array(tokens, np.int32), CONTROL)
    place = min(place, len(tokens) - 1)
    start = block_start(blocks, place)
    assert place - BLOCK < start <= place
    assert not blocks[start] or blocks[start : start + BLOCK].all()
    assert start == place or blocks[start : place + 1].all()


@given(TOKENS)
def test_blocks_are_whole_and_leave_less_than_one_of_a_turn(tokens):
    blocks = whole_blocks(np.array(tokens, np.int32), CONTROL)
    lengths = [(kind, len(list(group))) for kind, group in groupby(blocks.tolist())]
    assert all(length % BLOCK == 0 for whole, length in lengths if whole)
    if not any(token in CONTROL for token in tokens):
        assert blocks.sum() == len(tokens) // BLOCK * BLOCK


def test_blocks_begin_where_a_turns_text_begins():
    header = [256, 1, 258, 1, 1]
    blocks = whole_blocks(np.array([*[1] * 30, *header, *[1] * 70], np.int32), CONTROL)
    first = 30 + 1 + TURN_HEADER
    assert blocks[first : first + BLOCK].all() and blocks.sum() == BLOCK
