"""Who holds a slot, and what the next step decodes. Bookkeeping only: it never touches the model."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.engine.blocks import BLOCK
from pipeline.engine.cells import Cells
from pipeline.engine.priority import Priority
from pipeline.engine.sequence import Sequence, State
from pipeline.engine.slot import SHORTEST_SHARE, Share, Slot
from pipeline.engine.step import Piece, Step
from pipeline.engine.streams import stream_step
from pipeline.engine.turns import Turns
from pipeline.engine.waiting import Waiting


@dataclass(frozen=True, slots=True)
class Limits:
    """What the model can hold and do.

    cells: of all sequences together, or of each where `split`.
    sequences: ids, of which rows use the first `slots`.
    batch: the most tokens of a step.
    mixed: of one in which some rows generate, or in each of which the rules of `streams.py` hold.
    streamed: of one in which, or before which, interactive rows generate.
    outputs: the most logits of a step.
    """

    slots: int
    sequences: int
    cells: int
    split: bool
    batch: int
    mixed: int
    streamed: int
    outputs: int


class Scheduler:
    """Slots, reserved cells and shared beginnings of one context.

    A row takes the cells of the longest beginning that it shares with what lies in any slot, or will when
    the row in it is prefilled. Once interactive rows have come, an eighth of the slots is kept for them and
    another one for batch rows. Where that gives either nothing, because there is one slot or the others hold
    the cells, its first row is due after `PATIENCE` of the others: nobody else is admitted before it.
    reproducible: every row's tokens must come out the same whatever runs beside it; `streams.py` tells how.
    """

    def __init__(self, limits: Limits, *, reproducible: bool, share: bool) -> None:
        self._limits = limits
        self._reproducible = reproducible
        self._share = share
        self._slots = [Slot(id) for id in range(limits.slots)]
        self._cells = Cells(limits.cells * (limits.slots if limits.split else 1))
        self._shares: dict[Sequence, Share] = {}
        self.waiting = Waiting()
        self._turns = Turns(self.waiting)
        self._spared: Sequence | None = None  # A batch row whose turn it was: it yields to nobody.
        self._serves = False  # Interactive rows have come.
        self._late = False  # The latest call was without some of those who read along.
        self._part = max(1, limits.slots // 8) if limits.slots > 1 else 0
        self._held: float | None = 0.0  # None: to be counted again.
        # In the order of admission: the last one is the youngest.
        self.running: dict[Sequence, None] = {}
        # Sequence ids, and the position from which the model must forget their cells before the next step.
        self.released: list[tuple[int, int]] = []

    @property
    def held(self) -> float:
        """The share of all cells that running rows hold, or will come to need. On the engine's thread."""
        if self._held is None:
            self._held = self._cells.held(row.slot for row in self.running) / self._cells.total
        return self._held

    def submit(self, row: Sequence) -> None:
        self.waiting.append(row)
        self._serves = self._serves or row.priority is Priority.INTERACTIVE

    def admit(self) -> None:
        """Gives slots to waiting rows while their cells can be reserved: interactive ones first, in order."""
        if not self._serves:
            self._fill(Priority.BATCH, self._limits.slots)
            return
        if (due := self._due()) is not None:
            row = self.waiting.of(due)[0]
            self._fill(due, 1)
            if row not in self.running:
                return
            self._spared = row if due is Priority.BATCH else self._spared
        self._fill(Priority.BATCH, self._part - self._batch_rows)
        if self._fill(Priority.INTERACTIVE, self._limits.slots):
            self._fill(Priority.BATCH, self._limits.slots - self._part - self._batch_rows)

    def shares(self) -> list[tuple[Sequence, int]]:
        """Rows whose shared beginning is decoded and not yet theirs: they take its cells now, from the
        sequence of the second number."""
        for row in [row for row, share in self._shares.items() if share.lost]:
            del self._shares[row]  # It decodes its whole prompt itself.
        ready = [(row, share) for row, share in self._shares.items() if share.ready]
        for row, share in ready:
            del self._shares[row]
            row.filled = share.length
            row.cached = share.length if row.cached is None else row.cached
        return [(row, share.slot.id) for row, share in ready]

    def next_step(self) -> Step:
        """What to decode now; an empty step where nothing runs."""
        return self._reproducible_step() if self._reproducible else self._mixed_step()

    def finish(self, row: Sequence) -> None:
        """The row leaves its slot, or the queue."""
        if row in self.running:
            self._leave(row)
        else:
            self.waiting.remove(row)
        row.state = State.FINISHED

    def yielding(self) -> Sequence | None:
        """The youngest batch row, where an interactive one waits and batch rows have more than their part."""
        if not self.waiting.of(Priority.INTERACTIVE) or self._batch_rows <= self._part:
            return None
        batch = (row for row in reversed(self.running) if row.priority is Priority.BATCH)
        return next((row for row in batch if row is not self._spared), None)

    def preempt(self, row: Sequence | None = None) -> Sequence | None:
        """The row, or the youngest one, goes back to the head of its queue; None where a single row runs."""
        if row is None and len(self.running) < 2:
            return None
        youngest = row or next(reversed(self.running))
        self._drop(self._leave(youngest), 0)
        youngest.rewind()
        self.waiting.appendleft(youngest)
        return youngest

    # --- admission ---

    @property
    def _batch_rows(self) -> int:
        return self._count(Priority.BATCH)

    def _count(self, priority: Priority) -> int:
        return sum(row.priority is priority for row in self.running)

    def _due(self) -> Priority | None:
        """The priority whose turn it is, where it has less than its part."""
        part = max(1, self._part)
        due = (one for one in Priority if self._turns.is_due(one) and self._count(one) < part)
        return next(due, None)

    def _fill(self, priority: Priority, most: int) -> bool:
        """Admits at most so many rows; whether none of them waits any more."""
        queue = self.waiting.of(priority)
        while queue and most > 0 and self._admit(queue[0]):
            queue.popleft()
            self._turns.note(priority)
            most -= 1
        return not queue

    def _admit(self, row: Sequence) -> bool:
        free = [slot for slot in self._slots if slot.row is None]
        if not free:
            return False
        donor, length = self._donor(row)
        slot = donor if donor and donor.row is None else min(free, key=lambda s: (s.kept, s.id))
        self._drop(slot, length if slot is donor else 0)
        if not self._make_room(row.reserved - length, donor, length):
            return False
        if donor and slot is not donor:
            self._cells.share(donor.id, slot.id, length)
            self._shares[row] = Share(donor, donor.tokens, length)
        elif length:
            row.filled = length
            row.cached = length if row.cached is None else row.cached
        self._cells.reserve(slot.id, length, row.reserved)
        slot.take(row)
        row.slot, row.state = slot.id, State.PREFILL
        self.running[row] = None
        self._held = None
        return True

    def _donor(self, row: Sequence) -> tuple[Slot | None, int]:
        """The slot with the longest beginning that `row` can take over, and its length. Of several, a free
        one: its cells needn't be copied. Then the one that has them soonest, and the fewest others."""
        if not self._share or row.echo:
            return None, 0
        best: tuple[int, bool, int, int] = (SHORTEST_SHARE - 1, False, 0, 0)
        donor = None
        for slot in self._slots:
            if slot.row and slot.row.echo:
                continue
            length = self._usable(row, slot)
            rank = (length, slot.row is None, min(length, slot.ready), -slot.kept)
            if length >= SHORTEST_SHARE and rank > best:
                best, donor = rank, slot
        return donor, best[0] if donor else 0

    def _usable(self, row: Sequence, slot: Slot) -> int:
        """How many of the slot's cells a row may take over. The last token of its beginning is decoded by
        the row itself, for the logits after it, unless its lead has them or is about to."""
        common, whole = slot.common(row), len(row.beginning)
        lead = row.lead
        about_to = lead is not None and slot.row is lead and lead.state is State.PREFILL
        if common == whole and lead and (lead.first_logits is not None or about_to):
            return whole
        return min(common, whole - 1)

    def _make_room(self, needed: int, donor: Slot | None, length: int) -> bool:
        """Whether `needed` cells can be had, if need be from what free slots keep."""
        idle = sorted((slot for slot in self._slots if slot.row is None and slot.kept), key=lambda s: s.kept)
        for slot in [slot for slot in idle if slot is not donor] + [slot for slot in idle if slot is donor]:
            if self._cells.used + needed <= self._cells.total:
                return True
            self._drop(slot, length if slot is donor else 0)
        return self._cells.used + needed <= self._cells.total

    def _leave(self, row: Sequence) -> Slot:
        del self.running[row]
        self._held = None
        self._spared = None if row is self._spared else self._spared
        self._shares.pop(row, None)
        slot = self._slots[row.slot]
        kept = slot.ready if self._share and not row.echo else 0
        slot.row, slot.kept = None, kept
        self._cells.cut(slot.id, kept)
        self.released.append((slot.id, kept))
        return slot

    def _drop(self, slot: Slot, length: int) -> None:
        """A free slot gives up the cells that it keeps, but for the first `length`."""
        if slot.kept > length:
            slot.kept = length
            self._cells.cut(slot.id, length)
            self.released.append((slot.id, length))

    # --- steps ---

    def _prefills(self) -> list[Sequence]:
        """Rows with a beginning to decode; those that wait for a shared one have nothing to do yet."""
        return [row for row in self.running if row.state is State.PREFILL and row not in self._shares]

    @property
    def _most(self) -> int:
        """Tokens of a step in which others than those that generate take part."""
        return self._limits.streamed if self._read_along() else self._limits.mixed

    def _read_along(self) -> list[Sequence]:
        """Interactive rows that generate."""
        rows = self.running if self._serves else ()
        return [row for row in rows if row.priority is Priority.INTERACTIVE and row.state is State.DECODE]

    def _reproducible_step(self) -> Step:
        """Prompts and answers are decoded in calls of their own: every second call is for those who read
        along, so that no prompt holds them up for longer than one."""
        rows = [row for row in self.running if row not in self._shares]
        if theirs := self._late:
            rows = [row for row in rows if row.state is State.DECODE] or rows
        step = stream_step(
            rows,
            lambda id: self._slots[id].cells if id < len(self._slots) else 0,
            streams=self._limits.sequences,
            tokens=max(self._most, BLOCK, self._limits.sequences),
        )
        taken = {part.row for part in step.parts if isinstance(part, Piece)}
        self._late = not theirs and not taken.issuperset(self._read_along())
        return step

    def _mixed_step(self) -> Step:
        rows = [row for row in self.running if row.state is State.DECODE]
        step, room = Step(), self._limits.batch
        for row in rows:
            if room:
                step.parts.append(Piece.of(row, room))
                room -= step.parts[-1].count
        room = max(0, self._most - (self._limits.batch - room))
        outputs = self._limits.outputs - len(rows)
        for row in self._prefills():
            if not room or not outputs:
                break
            step.parts.append(Piece.of(row, min(room, outputs) if row.echo else room))
            room -= step.parts[-1].count
            outputs -= step.parts[-1].outputs
        return step
