"""Reading a given text: the same whatever the calls it is cut into."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.engine.fakes.fake import FakeModel, next_logits
from pipeline.engine.scores import Scores, score

TEXT = list(b"the herd goes home at night, and the gate is shut behind it")


def test_each_token_is_judged_by_all_before_it() -> None:
    scores = score(FakeModel(), TEXT)
    logits = [next_logits(TEXT[: at + 1]).astype(float) for at in range(len(TEXT) - 1)]
    assert scores.choices.tolist() == [int(row.argmax()) for row in logits]
    losses = [np.log(np.exp(row).sum()) - row[token] for row, token in zip(logits, TEXT[1:], strict=True)]
    assert scores.losses == pytest.approx(losses)
    assert scores.perplexity == pytest.approx(np.exp(np.mean(losses)))


@pytest.mark.parametrize(("batch_size", "max_sequences"), [(1, 13), (64, 1), (7, 5), (64, 64)])
def test_the_size_of_calls_changes_nothing(batch_size: int, max_sequences: int) -> None:
    model = FakeModel(batch_size=batch_size, max_sequences=max_sequences)
    assert score(model, TEXT).losses == pytest.approx(score(FakeModel(), TEXT).losses)
    assert model.used == 0


@pytest.mark.parametrize("context", [2, 20, len(TEXT) - 1, len(TEXT)])
def test_windows_stand_alone(context: int) -> None:
    windows = [TEXT[at : at + context] for at in range(0, len(TEXT), context)]
    alone = [score(FakeModel(), window).losses for window in windows if len(window) > 1]
    assert score(FakeModel(context=context), TEXT).losses == pytest.approx(np.concatenate(alone))


def test_agreement_is_the_share_of_equal_choices() -> None:
    one, other = (Scores(np.array(choices), np.zeros(4)) for choices in ([1, 2, 3, 4], [1, 2, 0, 4]))
    assert (one.agreement(one), one.agreement(other), other.agreement(one)) == (1.0, 0.75, 0.75)
