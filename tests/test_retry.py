import asyncio
import random

import pytest

from curation.limiter import START, Limiter
from curation.retry import LONGEST_WAIT, backoff, classify, retry_after


@pytest.mark.parametrize(
    "status, kind",
    [(429, "rate"), (503, "endpoint"), (502, "endpoint"), (500, "transient"), (400, "poison"), (413, "poison"),
     (401, "fatal"), (404, "fatal"), (302, "fatal"), (418, "fatal"), (599, "transient")],
)  # fmt: skip
def test_a_status_has_one_meaning(status: int, kind: str):
    assert classify(status, {}, "x").kind == kind


@pytest.mark.parametrize(
    "value, seconds",
    [
        ("3", 3.0),
        ("0", 0.0),
        ("-5", 0.0),
        ("1e9", LONGEST_WAIT),
        ("nan", None),
        ("soon", None),
        ("Thu, 01 Jan 1970 00:00:30 GMT", 20.0),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_never_trusted_blindly(value: str, seconds: float | None):
    assert retry_after({"retry-after": value}, now=10.0) == seconds


def test_backoff_stays_within_its_doubling_ceiling():
    rng = random.Random(0)
    assert all(0 <= backoff(a, 1.0, rng) <= min(60, 2**a) for a in range(30) for _ in range(20))


def test_the_limiter_converges_to_what_the_server_takes():
    """A server that refuses beyond 40 in flight, on a clock of our own: the limit ends near 40, from far above."""

    async def play() -> float:
        now = [0.0]
        limiter = Limiter(200, gap=1.0, clock=lambda: now[0])
        limiter.limit = 200.0
        for _ in range(400):
            now[0] += 1.0
            places = int(limiter.limit)
            for _ in range(places):
                await limiter.enter()
            if places > 40:
                limiter.refused(0.0)
            for _ in range(places):
                await limiter.leave(places <= 40)
        return limiter.limit

    assert 20 <= asyncio.run(play()) <= 60


def test_one_refusal_cuts_once_per_gap():
    async def play() -> float:
        limiter = Limiter(100, gap=10.0, clock=lambda: 0.0)
        for _ in range(50):
            limiter.refused(0.0)
        return limiter.limit

    assert asyncio.run(play()) == START * 0.75
