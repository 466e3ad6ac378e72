"""A fake model that answers every chat with one text, whatever it is asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from pipeline.engine.engine import Engine
from pipeline.engine.fakes.fake import EOS, IM_START, FakeModel
from pipeline.engine.model import Batch
from tests.serve.live import TOOL_TEMPLATE, Live, generative, served

LEAD = [IM_START, *b"assistant\n"]


class ScriptedModel(FakeModel):
    said = ""

    def decode(self, batch: Batch) -> NDArray[np.float32]:
        logits = super().decode(batch)
        wanted = [
            (sequence, position)
            for sequence, position, wants in zip(
                batch.sequence_ids, batch.positions, batch.wants_logits, strict=True
            )
            if wants
        ]
        for line, (sequence, position) in zip(logits, wanted, strict=True):
            line[self._next([cell.token for cell in self.held[sequence][: position + 1]])] += 100
        return logits

    def _next(self, tokens: list[int]) -> int:
        """The script's next byte, or its end."""
        begins = [at for at in range(len(tokens)) if tokens[at : at + len(LEAD)] == LEAD]
        told = len(tokens) - begins[-1] - len(LEAD) if begins else 0
        script = self.said.encode()
        return script[told] if told < len(script) else EOS


@contextmanager
def live_script(said: str, template: str = TOOL_TEMPLATE) -> Iterator[Live]:
    """A service whose model says `said`."""
    model = ScriptedModel(max_sequences=9, context=4096, cells=16384)
    model.said = said
    model.vocabulary.chat_template = template
    engine = Engine(model, slots=4)
    with served(generative(model, engine), engine) as made:
        made.model = model
        yield made
