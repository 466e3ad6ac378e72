"""Label probabilities: what sampling within the labels would draw, told from the forks of their tree."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.constraint.labels import LabelTree

ENDS = (256, 257)
LABELS = st.lists(st.text("abc", min_size=1, max_size=5), min_size=1, max_size=7, unique=True)


def tree_of(labels: list[str]) -> LabelTree:
    return LabelTree({label: label for label in labels}, str.encode, ENDS)


def model(path: tuple[int, ...], token: int) -> float:
    """A log-probability that depends on all of the path."""
    return -((hash((path, token)) % 1000) / 100 + 0.1)


def probability(label: str, labels: list[str]) -> float:
    """Step by step: at each place, among the tokens that some label goes on with."""
    total, said = 1.0, ()
    wanted = (*label.encode(), None)
    for token in wanted:
        following = {
            (*other.encode(), None)[len(said)] for other in labels if (*other.encode(),)[: len(said)] == said
        }
        weights = {
            t: math.exp(model(said, t)) if t is not None else sum(math.exp(model(said, e)) for e in ENDS)
            for t in following
        }
        total *= weights[token] / sum(weights.values())
        said = (*said, token)
    return total


@given(LABELS)
def test_each_label_has_the_probability_that_a_constrained_draw_gives_it(labels):
    tree = tree_of(labels)
    scores = [[model(fork.path, token) for token in fork.tokens] for fork in tree.forks]
    found = tree.logprobs(scores)
    assert list(found) == labels
    assert sum(map(math.exp, found.values())) == pytest.approx(1)
    for label, logprob in found.items():
        assert math.exp(logprob) == pytest.approx(probability(label, labels))


@given(LABELS)
def test_only_places_where_labels_part_are_asked_about(labels):
    forks = tree_of(labels).forks
    assert len({fork.path for fork in forks}) == len(forks)
    assert all(len(fork.branches) > 1 for fork in forks)
    assert len(forks) <= max(0, len(labels) - 1)


def test_labels_that_part_at_once_need_one_decision():
    assert [fork.path for fork in tree_of(["news", "sport", "other"]).forks] == [()]
    assert [bytes(fork.path) for fork in tree_of(["very good", "very bad"]).forks] == [b"very "]
