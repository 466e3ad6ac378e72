"""The end of a night: when a run stops by itself, with what it has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, time, timedelta

from pipeline.config import LimitsConfig
from pipeline.errors import ConfigError
from pipeline.pulse import Pulse
from pipeline.tally import Tally

Clock = Callable[[], datetime]
"""The time now, with its zone."""
Reached = Callable[[Tally, Pulse], str | None]
"""The limit that ends a run now, in words; see `Limits.reached`."""


def never(tally: Tally, pulse: Pulse) -> None:
    """No limit."""


def local_time() -> datetime:
    return datetime.now().astimezone()


@dataclass(frozen=True)
class Limits:
    """One run's limits. ends: when it ends by `stop_at` or `hours`, the earlier one, and the limit's name."""

    config: LimitsConfig
    ends: tuple[datetime, str] | None
    clock: Clock

    @classmethod
    def begin(cls, config: LimitsConfig, clock: Clock = local_time) -> Limits:
        """The limits of a run that begins now. Raises ConfigError where `stop_at` is a date in the past."""
        now, ends = clock(), []
        if config.stop_at is not None:
            ends.append((_stop_at(config.stop_at, now), "limits.stop_at"))
        if config.hours is not None:
            ends.append((now + timedelta(hours=config.hours), "limits.hours"))
        return cls(config, min(ends, default=None), clock)

    def after(self, done: Tally) -> Reached:
        """The limits of a run that follows others of the same night, which have added `done`."""
        return lambda tally, pulse: self.reached(done + tally, pulse)

    def reached(self, tally: Tally, pulse: Pulse) -> str | None:
        """The limit that ends the run now, in words; None while it may go on.

        tally: what the run has committed. pulse: what its workers have computed, committed or not.
        """
        config, computed = self.config, pulse.prompt_tokens + pulse.cached_tokens + pulse.completion_tokens
        if self.ends is not None and self.clock() >= self.ends[0]:
            return f"{self.ends[1]} ends the run: it is {self.ends[0]:%Y-%m-%d %H:%M}"
        if config.tokens is not None and max(tally.total_tokens, computed) >= config.tokens:
            return f"limits.tokens ends the run: it has had {config.tokens:,} tokens"
        if config.failures is not None and tally.failed >= config.failures:
            return f"limits.failures ends the run: {tally.failed:,} rows have failed"
        return None


def _stop_at(text: str, now: datetime) -> datetime:
    """The next time that it is so late, or the date and time themselves. Without a zone it is local time."""
    try:
        hour = time.fromisoformat(text)
    except ValueError:
        given = datetime.fromisoformat(text)
        ends = given if given.tzinfo else given.replace(tzinfo=now.tzinfo)
        if ends <= now:
            raise ConfigError(
                f"limits.stop_at: {text} is over, it is {now:%Y-%m-%d %H:%M} now: give a later time, or a "
                "time of day such as 06:00, which means the next time that it is 06:00"
            ) from None
        return ends
    ends = datetime.combine(now.date(), hour, tzinfo=hour.tzinfo or now.tzinfo)
    return ends if ends > now else ends + timedelta(days=1)
