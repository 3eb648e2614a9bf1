"""Limits: how many requests a second each key may make.

It knows neither keys nor HTTP, only names.
"""

import time
from collections.abc import Callable


class Buckets:
    """A bucket of tokens per name, which fills at a rate and holds a second's worth, at least one."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with full buckets; ``clock`` gives seconds."""
        self._clock = clock
        self._held: dict[str, tuple[float, float]] = {}

    def take(self, name: str, rate: float) -> float:
        """Take a token; return 0, or the seconds after which there is one again."""
        now, room = self._clock(), max(rate, 1.0)
        held, since = self._held.get(name, (room, now))
        held = min(room, held + (now - since) * rate)
        if held < 1:
            self._held[name] = (held, now)
            return (1 - held) / rate
        self._held[name] = (held - 1, now)
        return 0.0
