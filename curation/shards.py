"""A shard set: Parquet files that are whole, verified and never overwritten.

    SET/plan.json                      what it is made of, written once
    SET/data/<shard>-<sha12>.parquet   content in the name
    SET/drops/<shard>-<sha12>.parquet  rows that left, with reasons
    SET/commits/<shard>.json           the record that makes a shard exist; created exclusively, the first writer wins
    SET/_SUCCESS.json                  all commits, written last, after every file was read again and matched

Nobody lists data/ to learn what is true. Reading checks SHA-256 and page checksums.
"""

import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curation.durable import Disk, put, put_once, sha256_bytes, sweep
from curation.errors import InputError, StorageError
from curation.schema import DROPS, canonical_json, content_id

SUCCESS = "_SUCCESS.json"
SHARD_NAME = re.compile(r"[a-z0-9-]{1,64}")


@dataclass(frozen=True)
class Commit:
    """A shard's record: its file, what it holds, what left."""

    shard: str
    file: str  # relative to the set
    sha256: str
    bytes: int
    rows: int
    schema_sha: str
    input_sha: str = ""
    drops: Mapping[str, Any] | None = None  # {file, sha256, bytes, rows, reasons}
    counters: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ShardSet:
    """A folder of shards. `disk` is where writes go; tests hand in a failing one."""

    path: Path
    disk: Disk = field(default_factory=Disk, compare=False)

    @classmethod
    def create(cls, path: Path, plan: Mapping[str, Any], disk: Disk | None = None) -> "ShardSet":
        """The set at `path`, made if it is not there. Raises StorageError if one with another plan is."""
        made = cls(Path(path), disk or Disk())
        for folder in ("data", "drops", "commits"):
            (made.path / folder).mkdir(parents=True, exist_ok=True)
        sweep(made.path)
        text = canonical_json(plan).encode()
        if not put_once(made.disk, made.path / "plan.json", text) and (made.path / "plan.json").read_bytes() != text:
            raise StorageError(str(path), "a shard set with another plan", "the same plan", "use another folder")
        return made

    def write(
        self, shard: str, rows: pa.Table, dropped: pa.Table | None = None,
        counters: Mapping[str, float] | None = None, input_sha: str = "",
    ) -> Commit:  # fmt: skip
        """Commit one shard. If another writer committed it first, theirs stands and is returned. Raises StorageError."""
        assert SHARD_NAME.fullmatch(shard), f"shard name {shard!r}"
        file, data = self._store("data", shard, rows)
        gone = None
        if dropped is not None and dropped.num_rows:
            name, raw = self._store("drops", shard, dropped.sort_by([("row_id", "ascending"), ("reason", "ascending")]))
            gone = {
                "file": name, "sha256": sha256_bytes(raw), "bytes": len(raw), "rows": dropped.num_rows,
                "reasons": _counts(dropped["reason"]),
            }  # fmt: skip
        commit = Commit(
            shard, file, sha256_bytes(data), len(data), rows.num_rows, schema_sha(data), input_sha, gone,
            dict(sorted((counters or {}).items())),
        )  # fmt: skip
        if put_once(self.disk, self.path / "commits" / f"{shard}.json", sealed(asdict(commit))):
            return commit
        return self.commit(shard)

    def _store(self, folder: str, shard: str, rows: pa.Table) -> tuple[str, bytes]:
        data = parquet_bytes(rows)
        name = f"{folder}/{shard}-{sha256_bytes(data)[:12]}.parquet"
        put(self.disk, self.path / name, data)
        return name, data

    def commit(self, shard: str) -> Commit:
        """The record of a shard. Raises StorageError where it is damaged."""
        path = self.path / "commits" / f"{shard}.json"
        try:
            commit = Commit(**unsealed(path.read_bytes()))
        except (OSError, ValueError, TypeError) as e:
            raise _damaged(path, "an unreadable commit record") from e
        names = [commit.file, *([commit.drops["file"]] if commit.drops else [])]
        if commit.shard != shard or not all(re.fullmatch(r"(data|drops)/[a-z0-9-]+\.parquet", n) for n in names):
            raise _damaged(path, "a commit record that names other files")
        return commit

    def commits(self) -> dict[str, Commit]:
        """All committed shards by name, in order."""
        return {p.stem: self.commit(p.stem) for p in sorted((self.path / "commits").glob("*.json"))}

    def finished(self) -> bool:
        return (self.path / SUCCESS).exists()

    def finish(self, kind: str, extra: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Read every shard again and, if all match, write _SUCCESS.json; its content. Raises StorageError."""
        commits = self.commits()
        schema = ""
        for commit in commits.values():
            schema = str(self.read(commit).schema)
            self.read_drops(commit)
        success = {
            "kind": kind, "rows": sum(c.rows for c in commits.values()), "schema": schema,
            "dropped": sum((c.drops or {}).get("rows", 0) for c in commits.values()),
            "shards": [asdict(c) for c in commits.values()], **(extra or {}),
        }  # fmt: skip
        success["id"] = content_id(success["kind"], [c.sha256 for c in commits.values()])
        put(self.disk, self.path / SUCCESS, sealed(success))
        return success

    def success(self) -> dict[str, Any]:
        """The content of _SUCCESS.json. Raises InputError where the set is unfinished, StorageError where damaged."""
        path = self.path / SUCCESS
        if not path.exists():
            raise InputError(str(self.path), "an unfinished shard set", SUCCESS, "finish the run that makes it")
        try:
            return unsealed(path.read_bytes())
        except ValueError as e:
            raise _damaged(path, "an unreadable record") from e

    def tables(self, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """The finished set's shards in order, each verified as it is read. Raises StorageError, InputError."""
        for record in self.success()["shards"]:
            table = self.read(Commit(**record))
            yield table.select(columns) if columns else table

    def table(self, columns: list[str] | None = None) -> pa.Table:
        return pa.concat_tables(list(self.tables(columns)))

    def dropped(self) -> pa.Table:
        """All rows that left, with reasons, of the shards committed so far."""
        parts = [self.read_drops(c) for c in self.commits().values()]
        return pa.concat_tables(parts) if parts else DROPS.empty_table()

    def read(self, commit: Commit) -> pa.Table:
        """One shard, checked against its record. Raises StorageError."""
        table = self._verified(commit.file, commit.sha256)
        if table.num_rows != commit.rows or content_id(str(table.schema)) != commit.schema_sha:
            raise _damaged(self.path / "commits" / f"{commit.shard}.json", "other rows or columns than are in the file")
        return table

    def read_drops(self, commit: Commit) -> pa.Table:
        return self._verified(commit.drops["file"], commit.drops["sha256"]) if commit.drops else DROPS.empty_table()

    def _verified(self, name: str, sha256: str) -> pa.Table:
        path = self.path / name
        try:
            data = path.read_bytes()
        except OSError as e:
            raise _damaged(path, e.strerror or "an unreadable file") from e
        if sha256_bytes(data) != sha256:
            raise _damaged(path, "other bytes than were committed")
        return pq.read_table(io.BytesIO(data), page_checksum_verification=True)

    def verify(self) -> None:
        """Read everything that is committed; raises StorageError at the first damage."""
        for commit in self.commits().values():
            self.read(commit)
            self.read_drops(commit)
        if self.finished() and [c["shard"] for c in self.success()["shards"]] != list(self.commits()):
            raise _damaged(self.path / SUCCESS, "other shards than are committed")


def parquet_bytes(rows: pa.Table) -> bytes:
    """A table as Parquet: the same rows give the same bytes (pinned options, no metadata of ours).

    The Arrow schema is left out: it differs between a table just made and the same table read back.
    """
    sink = io.BytesIO()
    pq.write_table(
        rows.replace_schema_metadata(None), sink, compression="zstd", compression_level=1, version="2.6",
        write_page_checksum=True, write_page_index=True, row_group_size=65536, store_schema=False,
        use_dictionary=True, data_page_version="1.0",
    )  # fmt: skip
    return sink.getvalue()


def sealed(record: Mapping[str, Any]) -> bytes:
    """A record as JSON with a hash of itself, so that damage shows."""
    return canonical_json({**record, "check": content_id(record)}).encode()


def unsealed(data: bytes) -> dict[str, Any]:
    """The record in `data`. Raises ValueError where it is no record or not the one that was sealed."""
    record = json.loads(data)
    if not isinstance(record, dict) or record.pop("check", None) != content_id(record):
        raise ValueError("a record that does not match its own hash")
    if sealed(record) != data:  # what JSON does not see: white space, the writing of a number
        raise ValueError("a record that was written otherwise")
    return record


def schema_sha(data: bytes) -> str:
    """Hash of a Parquet file's columns and types, as they are read back (list items are renamed on the way)."""
    return content_id(str(pq.read_schema(io.BytesIO(data))))


def is_shard_set(path: Path) -> bool:
    return (Path(path) / "plan.json").is_file() and (Path(path) / "commits").is_dir()


def read_shards(path: Path) -> pa.Table:
    """All rows of a finished shard set, verified. Raises InputError (not finished), StorageError (damaged)."""
    return ShardSet(Path(path)).table()


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    return {c["values"]: c["counts"] for c in sorted(column.value_counts().to_pylist(), key=lambda c: c["values"])}


def _damaged(path: Path, found: str) -> StorageError:
    return StorageError(
        str(path), found, "what was committed", "restore the file, or delete its stage folder and run again"
    )
