"""How many requests may be in flight: additive increase, multiplicative decrease, one cool-down for all.

Only rate limits cut the number: a slow answer is no reason. Cuts come at most once per `gap`, since the requests that
were already under way will be refused too (the manner of TCP, and of inspect_ai's adaptive limiter).
"""

import asyncio
import time
from collections.abc import Callable

CUT = 0.75
START = 16


class Limiter:
    """An adaptive semaphore. `clock` is seconds, handed in by tests."""

    def __init__(self, most: int, gap: float = 10.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.most, self.gap, self.clock = most, gap, clock
        self.limit = float(min(START, most))
        self.in_flight = 0
        self.cool_until = self.last_cut = float("-inf")
        self.changed = asyncio.Condition()

    async def enter(self) -> None:
        """Wait for a place and for the end of the cool-down."""
        while True:
            wait = self.cool_until - self.clock()
            if wait > 0:
                await asyncio.sleep(wait)
                continue
            async with self.changed:
                if self.in_flight < int(self.limit):
                    self.in_flight += 1
                    return
                await self.changed.wait()

    async def leave(self, fine: bool) -> None:
        """Give the place back; a fine answer earns 1/limit of another place."""
        async with self.changed:
            self.in_flight -= 1
            if fine:
                self.limit = min(float(self.most), self.limit + 1.0 / self.limit)
            self.changed.notify_all()

    def refused(self, wait: float) -> None:
        """The server said too many: everybody waits, and the number is cut."""
        now = self.clock()
        self.cool_until = max(self.cool_until, now + wait)
        if now - self.last_cut >= self.gap:
            self.limit, self.last_cut = max(1.0, self.limit * CUT), now
