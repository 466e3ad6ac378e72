"""Who holds a slot, and what the next step decodes. Bookkeeping only: it never touches the model."""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain

from pipeline.engine.prefixes import Prefix, PrefixCache
from pipeline.engine.sequence import Sequence, State

Work = Sequence | Prefix


@dataclass(frozen=True, slots=True)
class Piece:
    """`count` pending tokens of one piece of work; wants: the logits after its last token."""

    work: Work
    count: int
    wants: bool = False


@dataclass(slots=True)
class Step:
    """One decode call. dummies: free sequences that get a throw-away token, and its position."""

    pieces: list[Piece] = field(default_factory=list)
    dummies: list[tuple[int, int]] = field(default_factory=list)

    def half(self) -> Step | None:
        """The first half of the step, None where nothing smaller is left."""
        if len(self.pieces) > 1:
            return Step(self.pieces[: len(self.pieces) // 2])
        piece = self.pieces[0]
        return Step([Piece(piece.work, piece.count // 2)]) if piece.count > 1 else None


class Scheduler:
    """Slots, reserved cells and shared prefixes of one context.

    Sequence ids: 0 to slots - 1 for rows, `slots` for a dummy, the rest for prefixes.
    split: each sequence has `cells` cells of its own, and every row's tokens must come out the
    same whatever runs beside it: prompts are decoded alone, generated tokens at least two a call.
    Otherwise all sequences share `cells`, and prompts ride along with generated tokens.
    """

    def __init__(self, *, slots: int, sequences: int, cells: int, split: bool, batch: int, step: int) -> None:
        self._cells = cells
        self._split = split
        self._batch = batch
        self._step = step
        self._free = list(range(slots))
        self._prefixes = PrefixCache(range(slots + 1, sequences))
        self._prefix_of: dict[Sequence, Prefix] = {}
        self._waiting_prefixes: Counter[tuple[int, ...]] = Counter()
        self.waiting: deque[Sequence] = deque()
        # In the order of admission: the last one is the youngest.
        self.running: dict[Sequence, None] = {}
        # Free slots of split streams that still hold the prefix of the row that left.
        self._kept: dict[int, tuple[int, ...]] = {}
        # Sequence ids, and the position from which the model must forget their cells before the next step.
        self.released: list[tuple[int, int]] = []

    def submit(self, sequence: Sequence) -> None:
        self.waiting.append(sequence)
        self._waiting_prefixes[_key(sequence)] += 1

    def admit(self) -> None:
        """Gives slots to waiting rows, in order, while their cells can be reserved."""
        while self.waiting and self._free and self._admit(self.waiting[0]):
            self._waiting_prefixes[_key(self.waiting.popleft())] -= 1

    def shares(self) -> list[tuple[Sequence, Prefix]]:
        """Rows whose shared prefix is decoded and not yet theirs: they take its cells now."""
        ready = [(row, prefix) for row, prefix in self._prefix_of.items() if prefix.ready and not row.filled]
        for row, prefix in ready:
            row.filled = len(prefix.tokens)
            if self._split:  # The row has a copy of its own.
                self._drop_prefix(row)
        return ready

    def next_step(self) -> Step:
        """What to decode now; an empty step where nothing runs."""
        return self._reproducible_step() if self._split else self._mixed_step()

    def finish(self, sequence: Sequence) -> None:
        """The row leaves its slot, or the queue."""
        if sequence in self.running:
            self._leave(sequence)
        else:
            self.waiting.remove(sequence)
            self._waiting_prefixes[_key(sequence)] -= 1
        sequence.state = State.FINISHED

    def preempt(self) -> Sequence | None:
        """The youngest row goes back to the head of the queue; None where a single row runs."""
        if len(self.running) < 2:
            return None
        youngest = next(reversed(self.running))
        self._leave(youngest)
        youngest.rewind(restart=self._split)
        self.waiting.appendleft(youngest)
        self._waiting_prefixes[_key(youngest)] += 1
        return youngest

    # --- admission ---

    def _admit(self, row: Sequence) -> bool:
        prefix, fresh = self._prefix_for(row)
        if prefix is None and row.prefix and self._split:
            return False  # Its beginning has to be decoded by itself: wait for a holder.
        if prefix:
            prefix.users += 1
        while not self._has_room(row, prefix):
            if not self._evict():
                if prefix:
                    prefix.users -= 1
                return False
        if prefix:
            self._prefix_of[row] = prefix
        if row.cached is None:
            row.cached = 0 if prefix is None or (fresh and not self._split) else len(prefix.tokens)
        self._take_slot(row)
        row.state = State.PREFILL
        self.running[row] = None
        return True

    def _take_slot(self, row: Sequence) -> None:
        """The lowest free slot, but for one that holds the row's prefix already."""
        key = _key(row)
        row.slot = min((slot for slot in self._free if self._kept.get(slot) == key), default=self._free[0])
        self._free.remove(row.slot)
        heapq.heapify(self._free)
        kept = self._kept.pop(row.slot, None)
        if kept and kept == key:
            row.filled = len(key)
            self._drop_prefix(row)
        elif kept:
            self.released.append((row.slot, 0))

    def _prefix_for(self, row: Sequence) -> tuple[Prefix | None, bool]:
        """The prefix that `row` shares, and whether it was opened for it."""
        key = _key(row)
        if not key or (found := self._prefixes.find(key)):
            return (found if key else None), False
        if not self._split and self._waiting_prefixes[key] < 2:
            return None, False  # Nobody to share it with.
        opened = self._prefixes.open(key)
        if opened is None and self._evict():
            opened = self._prefixes.open(key)
        return opened, True

    def _has_room(self, row: Sequence, prefix: Prefix | None) -> bool:
        if self._split:
            return row.reserved <= self._cells
        shared = len(prefix.tokens) if prefix else 0
        held = sum(other.reserved - self._shared(other) for other in self.running)
        return held + self._prefixes.cells + row.reserved - shared <= self._cells

    def _shared(self, row: Sequence) -> int:
        prefix = self._prefix_of.get(row)
        return len(prefix.tokens) if prefix else 0

    def _evict(self) -> bool:
        slot = self._prefixes.evict()
        if slot is None:
            return False
        self.released.append((slot, 0))
        return True

    def _leave(self, row: Sequence) -> None:
        del self.running[row]
        self._drop_prefix(row)
        heapq.heappush(self._free, row.slot)
        key = _key(row)
        keeps = self._split and bool(key) and row.filled >= len(key)
        if keeps:
            self._kept[row.slot] = key
        self.released.append((row.slot, len(key) if keeps else 0))

    def _drop_prefix(self, row: Sequence) -> None:
        prefix = self._prefix_of.pop(row, None)
        if prefix:
            prefix.users -= 1

    # --- steps ---

    def _decoding(self) -> list[Sequence]:
        return [row for row in self.running if row.state is State.DECODE]

    def _prefills(self) -> Iterable[Work]:
        """Prefixes first; rows that wait for one have nothing to decode yet."""
        rows = (row for row in self.running if row.state is State.PREFILL)
        return chain(
            self._prefixes.unfinished(), (row for row in rows if row.filled or row not in self._prefix_of)
        )

    def _mixed_step(self) -> Step:
        step = Step([Piece(row, 1, True) for row in self._decoding()])
        room = max(self._step, len(step.pieces)) - len(step.pieces)
        for work in self._prefills():
            if not room:
                break
            piece = _prefill(work, room)
            step.pieces.append(piece)
            room -= piece.count
        return step

    def _reproducible_step(self) -> Step:
        work = next(iter(self._prefills()), None)
        if work:
            return Step([_prefill(work, self._batch)])
        rows = sorted(self._decoding(), key=lambda row: row.slot)
        dummies = _companions([row.slot for row in rows])
        return Step([Piece(row, 1, True) for row in rows], [(s, len(self._kept.get(s, ()))) for s in dummies])


def _prefill(work: Work, room: int) -> Piece:
    count = len(work.pending(room))
    if isinstance(work, Prefix):
        return Piece(work, count)
    return Piece(work, count, wants=work.filled + count == work.length)


def _companions(slots: list[int]) -> list[int]:
    """Dummies for rows with no neighbour: llama.cpp computes each run of consecutive sequence ids
    by itself, and a single token takes other kernels than two."""
    taken = set(slots)
    lonely = [slot for slot in slots if slot - 1 not in taken and slot + 1 not in taken]
    return sorted({slot + 1 for slot in lonely})


def _key(row: Sequence) -> tuple[int, ...]:
    return tuple(row.prompt[: row.prefix])
