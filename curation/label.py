"""A page on which a person picks the better of two answers: blind, by keyboard, resumable.

The page shows text and nothing else: prompts and answers are set as text, never as markup. Which answer stands left is
drawn from pair and annotator, and the page is not told which model wrote it.
"""

import contextlib
import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from curation.durable import Disk, put
from curation.errors import InputError
from curation.guard import Guard
from curation.pair_source import read_pairs
from curation.pairs import OnPolicyPairs
from curation.schema import content_id
from curation.source import read_candidates
from curation.stage import Outcome
from curation.votes import PICKS, Vote, Votes, check_name, decided, report

PAGE = Path(__file__).with_name("label.html")


def read_tasks(spec: str, seed: int = 0) -> pa.Table:
    """The pairs to judge: those of a preference set, or two different answers of each prompt of a set of candidates.

    Raises InputError where there are none.
    """
    try:
        found = read_pairs(spec)
    except InputError:
        found = Outcome(pa.table({}))
    if found.rows.num_rows == 0:
        candidates = read_candidates(spec)
        mine = OnPolicyPairs(rule="unjudged", allow_mixed_policies=True, seed=seed)
        found = mine(candidates.rows) if candidates.rows.num_rows else candidates
    if found.rows.num_rows == 0:
        raise InputError(
            spec, f"nothing to compare ({found.reasons()})", "two different answers to a prompt, or chosen and rejected",
            "sample with K ≥ 2",
        )  # fmt: skip
    return found.rows


class Desk:
    """The pairs, the votes, and what one annotator sees next."""

    def __init__(self, pairs: pa.Table, out: Path, seed: int = 0) -> None:
        self.pairs, self.out, self.seed = pairs, out, seed
        self.votes = Votes(out)
        self.listed = {row["pair_id"]: row for row in pairs.to_pylist()}

    def turned(self, annotator: str, pair: str) -> bool:
        """Whether this annotator sees the pair's second side on the left."""
        return int(content_id("side", self.seed, annotator, pair)[:8], 16) % 2 == 1

    def next(self, annotator: str) -> dict[str, Any]:
        """The next pair without a vote of theirs, in an order of their own, and how far they are."""
        done = {pair for name, pair in self.votes.latest() if name == annotator}
        left = sorted((i for i in self.listed if i not in done), key=lambda i: content_id(self.seed, annotator, i))
        task = None
        if left:
            row = self.listed[left[0]]
            sides = [row["chosen"][-1]["content"], row["rejected"][-1]["content"]]
            if self.turned(annotator, left[0]):
                sides.reverse()
            task = {"pair_id": left[0], "prompt": row["prompt"], "left": sides[0], "right": sides[1]}
        return {"task": task, "done": len(done), "total": len(self.listed)}

    def vote(self, said: Mapping[str, Any]) -> dict[str, Any]:
        """Keep a vote {vote_id, pair_id, annotator, pick: left|right|tie|skip}; the next pair. Raises InputError."""
        names = ("vote_id", "pair_id", "annotator", "pick")
        if set(said) != set(names) or not all(isinstance(said[n], str) for n in names):
            raise InputError("vote", ", ".join(map(str, said))[:80], ", ".join(names), "send all four as text")
        annotator = check_name(said["annotator"])
        if said["pair_id"] not in self.listed or not 8 <= len(said["vote_id"]) <= 64 or not said["vote_id"].isascii():
            raise InputError("vote", "an unknown pair or a bad vote_id", "a pair of this set", "load the page again")
        sides = {"left": "first", "right": "second"}
        if self.turned(annotator, said["pair_id"]):
            sides = {"left": "second", "right": "first"}
        pick = sides.get(said["pick"], said["pick"])
        if said["pick"] not in (*sides, "tie", "skip") or pick not in PICKS:
            raise InputError("vote", repr(said["pick"])[:40], "left, right, tie or skip", "send one of these")
        at = datetime.now(UTC).isoformat(timespec="seconds")
        self.votes.add(Vote(said["vote_id"], said["pair_id"], annotator, pick, at))
        return self.next(annotator)

    def export(self) -> Outcome:
        """Write pairs.parquet and agreement.json from the votes so far; the decided pairs."""
        import io

        import pyarrow.parquet as pq

        made = decided(self.pairs, list(self.votes.latest().values()))
        buffer = io.BytesIO()
        pq.write_table(made.rows, buffer, compression="zstd")
        put(Disk(), self.out / "pairs.parquet", buffer.getvalue())
        found = {**report(len(self.listed), self.votes), "decided": made.rows.num_rows, "left": made.reasons()}
        put(Disk(), self.out / "agreement.json", (json.dumps(found, indent=1, sort_keys=True) + "\n").encode())
        return made


def make_app(desk: Desk) -> Any:
    """The FastAPI application: the page, the next pair, a vote."""
    from fastapi import FastAPI, Request
    from fastapi.responses import HTMLResponse, JSONResponse

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/")
    async def page(request: Request) -> HTMLResponse:
        return HTMLResponse(PAGE.read_text(encoding="utf-8").replace("NONCE", request.scope["nonce"]))

    @app.post("/next")
    async def following(request: Request) -> JSONResponse:
        return await _answered(request, lambda said: desk.next(check_name(str(said.get("annotator", "")))))

    @app.post("/vote")
    async def vote(request: Request) -> JSONResponse:
        return await _answered(request, desk.vote)

    async def _answered(request: Request, act: Any) -> JSONResponse:
        try:
            said = json.loads(await request.body())
            if not isinstance(said, dict):
                raise InputError("request", "no JSON object", "an object", "load the page again")
            return JSONResponse(act(said))
        except (InputError, ValueError, RecursionError) as e:
            return JSONResponse({"error": str(e)[:300]}, status_code=422)

    return app


def serve(desk: Desk, port: int, token: str | None = None) -> None:
    """Serve the page on loopback until interrupted; the link with its token goes to stderr. Raises InputError."""
    try:
        import uvicorn
    except ImportError as e:
        raise InputError(
            "label", "uvicorn not installed", "fastapi and uvicorn", "pip install 'thresher[label]'"
        ) from e
    guard = Guard(make_app(desk), port, token)
    config = uvicorn.Config(
        guard, host="127.0.0.1", port=port, log_level="error", access_log=False, server_header=False, ws="none",
        h11_max_incomplete_event_size=16384, timeout_keep_alive=5,
    )  # fmt: skip
    print(f"open {guard.link}\nstop with Ctrl-C; votes are kept in {desk.votes.path}", file=sys.stderr, flush=True)
    with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C is how a person says they are done
        uvicorn.Server(config).run()
