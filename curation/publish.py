"""Publishing: a pipeline's last stage as a finished set of its own, with a data card, under one plain name."""

import errno
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from curation.card import write_card
from curation.durable import put
from curation.errors import StorageError
from curation.schema import canonical_json
from curation.shards import SUCCESS, Commit, ShardSet, sealed


def publish(
    out: Path, name: str, fingerprint: str, last: ShardSet, stages: Sequence[Mapping[str, Any]], source: ShardSet
) -> Path:
    """The set `out`/`name` with the shards of `last`; one that holds anything else under that name is replaced whole."""
    target, wanted = out / name, {"pipeline": name, "fingerprint": fingerprint}
    shards = [c.sha256 for c in last.commits().values()]
    if (target / SUCCESS).exists() and (target / "plan.json").read_text() == canonical_json(wanted):
        there = ShardSet(target).success()["shards"]  # the same settings may have been run afresh
        if [c["sha256"] for c in there] == shards:
            return target
    made = out / f".{name}.{os.getpid()}.publishing"
    shutil.rmtree(made, ignore_errors=True)
    copy = ShardSet.create(made, wanted)
    for commit in last.commits().values():
        adopt(copy, last, commit)
    success = copy.finish(name, {"run": "..", "stage": str(last.path.relative_to(out))})
    write_card(made, name, success, stages, source)
    swap(made, target)
    return target


def adopt(target: ShardSet, source: ShardSet, commit: Commit) -> None:
    """Commit a shard of another set here under the same bytes: a second name for the file, or a copy where links fail."""
    try:
        (target.path / commit.file).hardlink_to(source.path / commit.file)
    except OSError:
        shutil.copyfile(source.path / commit.file, target.path / commit.file)
    record = {**asdict(commit), "drops": None, "counters": {}}
    put(target.disk, target.path / "commits" / f"{commit.shard}.json", sealed(record))


def swap(made: Path, target: Path) -> None:
    """Give the folder `made` the name `target`, whatever bears it now. Another run may do the same at this moment."""
    for attempt in range(100):
        old: Path | None = target.with_name(f".{target.name}.{os.getpid()}.{attempt}.old")
        try:
            target.rename(str(old))
        except FileNotFoundError:
            old = None  # nothing bears it
        try:
            made.rename(target)
            return
        except OSError as e:
            if e.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        finally:
            if old is not None:
                shutil.rmtree(old, ignore_errors=True)
    raise StorageError(str(target), "a folder that others keep replacing", "a free name", "stop the other run")
