"""The few moves that make a file durable: all writes of shards, records and journals go through here.

A file is written beside its place, forced to disk, and only then given its name. After a failed fsync nothing is
tried again on the same file: Linux marks the pages clean (Rebello et al., ATC 2020), so the file is thrown away.
"""

import errno
import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path

from curation.errors import StorageError

ORPHAN_AGE = 3600.0  # seconds after which an unfinished temporary file is nobody's


class Disk:
    """Writes to the real disk. Tests hand in one whose n-th call fails."""

    def write(self, path: Path, data: bytes) -> None:
        """Write and force to disk. The file at `path` is new or replaced; a failure removes it and raises OSError."""
        try:
            with path.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            path.unlink(missing_ok=True)
            raise

    def rename(self, source: Path, target: Path) -> None:
        os.replace(source, target)

    def link(self, source: Path, target: Path) -> bool:
        """Give `source` a second name; False if that name is taken. The exclusive create of a commit."""
        try:
            os.link(source, target)
        except FileExistsError:
            return False
        return True

    def sync_folder(self, folder: Path) -> None:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def put(disk: Disk, path: Path, data: bytes) -> None:
    """Put `data` at `path`, whole or not at all. Raises StorageError."""
    work = temporary(path)

    def steps() -> None:
        disk.write(work, data)
        disk.rename(work, path)
        disk.sync_folder(path.parent)

    guard(path, steps, work)


def put_once(disk: Disk, path: Path, data: bytes) -> bool:
    """Put `data` at `path` unless something is there: False then. First writer wins. Raises StorageError."""
    work = temporary(path)
    won: list[bool] = []

    def steps() -> None:
        disk.write(work, data)
        won.append(disk.link(work, path))
        work.unlink()
        disk.sync_folder(path.parent)

    guard(path, steps, work)
    return won[0]


def temporary(path: Path) -> Path:
    """A name beside `path` that no reader's glob matches and no other process uses."""
    return path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}.tmp")


def guard(path: Path, steps: Callable[[], object], work: Path) -> None:
    """Run `steps`; on OSError remove `work` and raise StorageError with the remedy."""
    try:
        steps()
    except OSError as e:
        work.unlink(missing_ok=True)
        full = e.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        raise StorageError(
            str(path), e.strerror or str(e), "room and a healthy disk",
            "free space and start again: what is committed is kept" if full else "check the disk and start again",
        ) from e  # fmt: skip


def sweep(folder: Path, older_than: float = ORPHAN_AGE) -> int:
    """Remove temporary files that a killed process left behind; how many."""
    now, swept = time.time(), 0
    for path in folder.rglob(".*.tmp"):
        try:
            if now - path.stat().st_mtime >= older_than:
                path.unlink()
                swept += 1
        except FileNotFoundError:  # another process swept it
            continue
    return swept


def sha256_bytes(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
