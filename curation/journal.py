"""The journal: what engines said, kept before it becomes rows. A kill loses nothing that was paid for.

    JOURNAL/<attempt>.jl   lines of  <crc32 hex> <length> <JSON>\\n

One file per process, so two runs of one job never write into each other; replay reads all of them. A torn last line
is what a kill leaves: it is skipped. Every record is handed to the operating system before its reply is passed on
(a killed process loses nothing); `sync` forces it to the disk, and runs before a shard is committed.
"""

import json
import os
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from curation.engine import Engine, Reply, Request
from curation.errors import StorageError

AGAIN = "failed"  # errors that begin so came from a passing fault: asked again at the next start
SYNC_SECONDS = 1.0


class Journal:
    """Replies by request key and sample index, on disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.known: dict[str, dict[int, Reply]] = {}
        for path in sorted(folder.glob("*.jl")):
            self._load(path)
        self.path = folder / f"{os.getpid()}-{time.time_ns()}.jl"
        self.file: int | None = None
        self.lock = threading.Lock()
        self.synced = time.monotonic()
        self.replayed = self.asked = 0

    def answer(self, engine: Engine, requests: Sequence[Request]) -> Iterator[tuple[Request, list[Reply]]]:
        """Replay what is known; ask the engine for the sample indices that are missing, keeping them before yielding."""
        model = engine.identity()
        keys: dict[str, str] = {}
        missing: list[Request] = []
        for request in requests:
            assert request.prompt_id not in keys, f"prompt {request.prompt_id} asked twice in one call"
            keys[request.prompt_id] = key = request.key(model)
            known = self.known.get(key, {})
            there = [known[i] for i in request.samples if i in known]
            if there:
                self.replayed += len(there)
                yield request, there
            if len(there) < len(request.samples):
                missing.append(request._replace(samples=tuple(i for i in request.samples if i not in known)))
        if missing:
            for request, replies in engine.answer(missing):
                self.asked += len(replies)
                self._append(keys[request.prompt_id], replies)
                yield request, replies

    def sync(self) -> None:
        """Force what was appended to the disk."""
        with self.lock:
            if self.file is not None:
                os.fsync(self.file)
            self.synced = time.monotonic()

    def close(self) -> None:
        self.sync()
        with self.lock:
            if self.file is not None:
                os.close(self.file)
                self.file = None

    def _append(self, key: str, replies: Sequence[Reply]) -> None:
        body = json.dumps([key, replies], separators=(",", ":"), ensure_ascii=True).encode()
        line = b"%08x %d %b\n" % (zlib.crc32(body), len(body), body)
        with self.lock:
            try:
                if self.file is None:
                    self.file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
                written = os.write(self.file, line)
                if written != len(line):
                    raise OSError(28, "No space left on device")
            except OSError as e:
                raise StorageError(
                    str(self.path),
                    e.strerror or str(e),
                    "room for replies",
                    "free space and start again: replies so far are kept",
                ) from e
        if time.monotonic() - self.synced > SYNC_SECONDS:
            self.sync()

    def _load(self, path: Path) -> None:
        """Replies of one file. A damaged line is skipped: its request is asked again."""
        for line in path.read_bytes().split(b"\n"):
            parts = line.split(b" ", 2)
            if len(parts) != 3 or len(parts[0]) != 8 or not parts[1].isdigit():
                continue
            body = parts[2]
            if len(body) != int(parts[1]) or b"%08x" % zlib.crc32(body) != parts[0]:
                continue
            key, replies = json.loads(body)
            kept = self.known.setdefault(key, {})
            for values in replies:
                reply = Reply(*values)
                if not (reply.error or "").startswith(AGAIN):
                    kept.setdefault(reply.sample, reply)
