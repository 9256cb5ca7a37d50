"""What a failed request means: one table, decided by us and not by a client library.

rate        429                                  wait as told, cut the concurrency, ask again
endpoint    refused, reset, 502, 503, 504, slow  the server's trouble: wait with back-off, bounded by time
transient   500, broken or empty answer          this answer's trouble: a few attempts, then failed
poison      400, 413, 422                        this prompt's trouble: never again
fatal       401, 403, 404, other 4xx             nothing will work: stop before the other 100,000 rows
"""

import email.utils
import random
import time
from collections.abc import Mapping
from typing import Literal, NamedTuple

Kind = Literal["rate", "endpoint", "transient", "poison", "fatal"]

BY_STATUS: Mapping[int, Kind] = {
    429: "rate", 408: "endpoint", 409: "transient", 425: "endpoint", 502: "endpoint", 503: "endpoint", 504: "endpoint",
    529: "rate", 400: "poison", 413: "poison", 422: "poison",
}  # fmt: skip
LONGEST_WAIT = 600.0  # seconds a server may make us wait by Retry-After
BACKOFF_CAP = 60.0


class Trouble(NamedTuple):
    """A failed attempt: its kind, what to show, and the wait the server asked for."""

    kind: Kind
    detail: str
    wait: float | None = None


def classify(status: int, headers: Mapping[str, str], body: str) -> Trouble:
    """The trouble behind an HTTP status other than 2xx. `body` is cut for showing."""
    kind = BY_STATUS.get(status) or ("transient" if status >= 500 else "fatal")
    shown = " ".join(body.split())[:200]
    return Trouble(kind, f"HTTP {status} {shown}".strip(), retry_after(headers))


def retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Seconds from a Retry-After header, given in seconds or as an HTTP date; None where there is none we trust."""
    value = next((v for k, v in headers.items() if k.lower() == "retry-after"), None)
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - (time.time() if now is None else now)
        except (ValueError, TypeError):
            return None
    return min(max(seconds, 0.0), LONGEST_WAIT) if seconds == seconds else None


def backoff(attempt: int, first: float, rng: random.Random) -> float:
    """Full jitter: uniform in [0, min(cap, first · 2^attempt)] seconds (Brooker 2015)."""
    return rng.uniform(0.0, min(BACKOFF_CAP, first * 2.0 ** min(attempt, 20)))
