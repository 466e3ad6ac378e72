"""Answers rows by arithmetic, in simulated time, and comes to harm where a row says so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pipeline.answer.answers import Answers
from pipeline.engine.sequence import Generation
from pipeline.errors import RowError
from pipeline.pulse import Pulse
from pipeline.request.rows import Row
from pipeline.request.schema import CompletionRequest
from tests.faults.arithmetic import Sum
from tests.soak.case import Fate
from tests.soak.scene import Scene
from tests.soak.world import Process


class Calculator:
    """A responder in a simulated process. seconds: a row takes. driver: the number of whom it works for."""

    kind: Literal["generate", "embed"] = "generate"

    def __init__(self, scene: Scene, process: Process, answers: Answers, seconds: float, driver: int) -> None:
        self._world, self._weather, self._witness = scene.world, scene.weather, scene.witness
        self._process, self._answers, self._seconds, self._driver = process, answers, seconds, driver
        self._under_way: dict[int, list[dict[str, Any]]] = {}

    def respond(self, rows: Sequence[Row], attempts: int) -> list[dict[str, Any]]:
        answers = self._under_way.setdefault(id(rows), [])
        try:
            for row in rows:
                answers.append(self._answer(row, attempts))
        finally:
            del self._under_way[id(rows)]
        return answers

    def answered(self, rows: Sequence[Row]) -> dict[int, dict[str, Any]]:
        return dict(enumerate(self._under_way.get(id(rows), [])))

    def pulse(self) -> Pulse:
        return Pulse()

    def close(self) -> None: ...

    def _answer(self, row: Row, attempts: int) -> dict[str, Any]:
        assert isinstance(row.request, CompletionRequest), row
        task = Sum.of(str(row.request.prompt))
        fate = Fate.of(str(row.request.prompt), self._process.phase)
        self._work(task)
        if fate.code == "worker_crashed":
            self._world.count("poisoned", row.custom_id)
            self._world.kill(self._process, blame=True)
            self._world.die_if_dead()
        if attempts:
            self._witness.answered(self._driver, row.custom_id)
        if fate.code or (task.once and attempts == 1):
            error = RowError(fate.code or "server_error", "as it was ordered")
            return self._answers.error(row.custom_id, error, attempts)
        tokens = tuple(range(task.completion_tokens))
        generation = Generation(task.text, tokens, "stop", task.prompt_tokens, task.cached_tokens)
        return self._answers.completion(row, [generation], attempts)

    def _work(self, task: Sum) -> None:
        self._world.die_if_dead()
        # A pause for each row would show little more, and take long.
        if task.number % 4 == 0 or task.order:
            self._weather.before("answer", f"{task.number}")
            self._world.sleep(4 * self._seconds)
