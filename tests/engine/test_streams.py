"""Reproducible calls: of shapes that llama.cpp rounds alike, and each token always in the same kind."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container
from functools import partial
from itertools import groupby

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.engine.blocks import BLOCK, SHORTEST_TURN, TURN_HEADER, AttentionCost, in_blocks
from pipeline.engine.engine import Engine
from pipeline.engine.fakes.fake import EOS, FakeModel, FakeVocabulary
from pipeline.engine.model import Batch
from pipeline.engine.priority import Priority
from pipeline.engine.sampling.sampling import SamplingParams, new_sampler
from pipeline.engine.sequence import Sequence
from pipeline.engine.text import TextStream
from tests.engine.choice_guide import ChoiceGuide, labels_of

VOCABULARY = FakeVocabulary()
CONTROL = np.isin(np.arange(VOCABULARY.size), [256, 258])
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


def run(
    prompts: list[list[int]], order: list[int], slots: int, preempt: int, urgent: Container[int] = ()
) -> list[tuple[object, ...]]:
    """For each prompt: its text, and the kind of call that each of its tokens was computed in.

    urgent: the prompts of which somebody reads the answer along."""
    model = WatchedModel(split=True, max_sequences=slots, context=512, batch_size=256, max_outputs=128)
    kinds = model.watch()
    engine = Engine(model, slots=slots, step_tokens=256, stream_tokens=64, reproducible=True)
    found: dict[int, tuple[object, ...]] = {}
    for at in order:
        row = new_row(prompts[at], at)
        row.priority = Priority.INTERACTIVE if at in urgent else Priority.BATCH
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


@settings(max_examples=80)
@given(
    prompts=PROMPTS,
    slots=st.integers(1, 13),
    preempt=st.integers(3, 50),
    random=st.randoms(use_true_random=False),
    urgent=st.sets(st.integers(0, 9)),
)
def test_a_token_is_computed_in_the_same_kind_of_call_in_every_schedule(
    prompts, slots, preempt, random, urgent
):
    order = list(range(len(prompts)))
    plain = run(prompts, order, 1, 1000)
    random.shuffle(order)
    assert run(prompts, order, slots, preempt, urgent) == plain


COSTS = st.builds(AttentionCost, st.floats(0, 0.02), st.floats(0, 0.002))


@given(TOKENS, COSTS, st.integers(1, 60))
def test_the_kind_of_a_beginning_depends_on_nothing_behind_it(tokens, cost, more):
    system = [1] * 80 + [256, 1, 258, 1, 1]
    one, other = (
        in_blocks(np.array([*system, *text], np.int32), CONTROL, cost)[: len(system)]
        for text in ([1] * (SHORTEST_TURN + more), [2] * (SHORTEST_TURN + 3 * more))
    )
    np.testing.assert_array_equal(one, other)
    blocks = in_blocks(np.array(tokens, np.int32), CONTROL, cost)
    lengths = [len(list(group)) for kind, group in groupby(blocks.tolist()) if not kind]
    assert all(length < 2 * BLOCK for length in lengths) and len(lengths) <= 2


@given(st.integers(0, 4000), st.integers(1, BLOCK))
def test_filling_up_pays_the_sooner_the_more_cells_and_tokens_there_are(start, count):
    for cost in (AttentionCost(), AttentionCost.of(17280, 134_000_000, {"AMX"})):
        if cost.prefers_block(start, count):
            assert cost.prefers_block(start + 100, count) and cost.prefers_block(start, count + 1)
        assert cost.prefers_block(start, BLOCK)


def test_where_matrices_are_cheap_fewer_tokens_make_a_block():
    slow, amx = (AttentionCost.of(17280, 134_000_000, buffers) for buffers in ({"CPU"}, {"CPU", "AMX"}))
    least = [next(n for n in range(1, 65) if cost.prefers_block(300, n)) for cost in (slow, amx)]
    assert least == [50, 17]
    assert not amx.prefers_block(0, 40), "with nothing before them, single tokens cost no more"


def test_a_short_last_turn_is_single_and_what_is_before_it_a_block():
    system = [*[1] * 80, 256, 1, 258, 1, 1]
    text = [1] * 20
    turn = 80 + 1 + TURN_HEADER
    assert turn == len(system)
    blocks = in_blocks(np.array([*system, *text], np.int32), CONTROL, AttentionCost())
    assert blocks.tolist() == [True] * turn + [False] * len(text)


def test_the_last_tokens_of_a_long_turn_are_single():
    blocks = in_blocks(np.array([1] * (5 * BLOCK + 10), np.int32), CONTROL, AttentionCost())
    assert blocks.sum() == 5 * BLOCK and not blocks[-10:].any()
    # Questions on one document: a row has fewer tokens to itself than its block would hold.
    assert not in_blocks(np.array([1] * (9 * BLOCK + 45), np.int32), CONTROL, AttentionCost())[-45:].any()
    assert in_blocks(np.array([1] * (BLOCK + 10), np.int32), CONTROL, AttentionCost()).all()
