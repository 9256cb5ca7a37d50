"""Shards are whole or not there, and damage is never silent."""

import errno
import json
from pathlib import Path

import pyarrow as pa
import pytest

from curation.durable import Disk, sweep
from curation.errors import InputError, StorageError
from curation.shards import ShardSet, is_shard_set, parquet_bytes, read_shards, sealed
from curation.stage import drops


def table(n: int = 50, start: int = 0) -> pa.Table:
    return pa.table(
        {"candidate_id": [f"c{start + i:04d}" for i in range(n)], "text": [f"row {i} é" * 3 for i in range(n)]}
    )


def three_shards(path: Path, disk: Disk | None = None) -> ShardSet:
    shards = ShardSet.create(path, {"stage": "test"}, disk)
    for i in range(3):
        shards.write(f"{i:05d}", table(start=100 * i), drops([(f"d{i}", "bad", "")]), {"tokens": 5})
    shards.finish("test")
    return shards


def files(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def test_what_is_written_is_read_back_and_counted(tmp_path: Path):
    shards = three_shards(tmp_path)
    assert read_shards(tmp_path).equals(pa.concat_tables([table(start=100 * i) for i in range(3)]))
    assert shards.dropped().num_rows == 3 and shards.success()["rows"] == 150 and is_shard_set(tmp_path)


def test_the_same_rows_give_the_same_bytes_made_or_read_back(tmp_path: Path):
    three_shards(tmp_path / "a"), three_shards(tmp_path / "b")
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert parquet_bytes(read_shards(tmp_path / "a")) == parquet_bytes(read_shards(tmp_path / "a").combine_chunks())


def test_the_first_writer_of_a_shard_wins(tmp_path: Path):
    shards = ShardSet.create(tmp_path, {})
    first = shards.write("00000", table(5))
    assert shards.write("00000", table(9)) == first and shards.commits()["00000"].rows == 5
    shards.finish("test")
    assert read_shards(tmp_path).num_rows == 5


def test_a_set_is_not_read_before_it_is_finished(tmp_path: Path):
    shards = ShardSet.create(tmp_path, {})
    shards.write("00000", table(5))
    with pytest.raises(InputError, match="unfinished"):
        read_shards(tmp_path)


def test_another_plan_in_the_same_folder_is_refused(tmp_path: Path):
    ShardSet.create(tmp_path, {"a": 1})
    with pytest.raises(StorageError, match="another plan"):
        ShardSet.create(tmp_path, {"a": 2})


def test_an_empty_shard_keeps_its_columns(tmp_path: Path):
    shards = ShardSet.create(tmp_path, {})
    shards.write("00000", table(0))
    shards.finish("test")
    assert read_shards(tmp_path).schema == table(0).schema


def test_any_flipped_bit_in_a_committed_file_is_reported(tmp_path: Path):
    three_shards(tmp_path)
    whole = files(tmp_path)
    for name in [n for n in whole if n != "plan.json"]:
        data = whole[name]
        for at in sorted({*range(0, len(data), max(1, len(data) // 40)), len(data) - 1}):
            for bit in (0, 6):
                (tmp_path / name).write_bytes(data[:at] + bytes([data[at] ^ (1 << bit)]) + data[at + 1 :])
                with pytest.raises(StorageError):
                    reread(tmp_path)
        (tmp_path / name).write_bytes(data)
    reread(tmp_path)


def reread(path: Path) -> None:
    """Everything a reader trusts: commit records, data, drops, and the final record."""
    ShardSet(path).verify()
    read_shards(path)


@pytest.mark.parametrize("damage", ["cut", "empty", "gone", "swapped"])
def test_cut_missing_and_swapped_files_are_reported(tmp_path: Path, damage: str):
    three_shards(tmp_path)
    a, b, *_ = sorted((tmp_path / "data").iterdir())
    first, second = a.read_bytes(), b.read_bytes()
    if damage == "gone":
        a.unlink()
    elif damage == "swapped":
        a.write_bytes(second), b.write_bytes(first)
    else:
        a.write_bytes(first[:-10] if damage == "cut" else b"")
    with pytest.raises(StorageError):
        read_shards(tmp_path)


@pytest.mark.parametrize("name", ["../../etc/passwd", "data/../x.parquet", "/abs.parquet", "data/x.txt"])
def test_a_commit_record_cannot_point_outside_its_set(tmp_path: Path, name: str):
    three_shards(tmp_path)
    path = tmp_path / "commits" / "00000.json"
    record = {**json.loads(path.read_text()), "file": name}
    del record["check"]
    path.write_bytes(sealed(record))
    with pytest.raises(StorageError):
        ShardSet(tmp_path).verify()


class FailingDisk(Disk):
    """The n-th move fails, some only after having done half their work."""

    def __init__(self, n: int, number: int) -> None:
        self.left, self.number = n, number

    def _count(self, path: Path, data: bytes | None = None) -> None:
        self.left -= 1
        if self.left == 0:
            if data is not None:
                path.write_bytes(data[: len(data) // 2])
            raise OSError(self.number, "made to fail")

    def write(self, path: Path, data: bytes) -> None:
        self._count(path, data)
        super().write(path, data)

    def rename(self, source: Path, target: Path) -> None:
        self._count(target)
        super().rename(source, target)

    def link(self, source: Path, target: Path) -> bool:
        self._count(target)
        return super().link(source, target)

    def sync_folder(self, folder: Path) -> None:
        self._count(folder)
        super().sync_folder(folder)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_whichever_write_fails_nothing_bad_is_committed_and_a_second_run_completes(tmp_path: Path, number: int):
    three_shards(tmp_path / "clean")
    wanted = files(tmp_path / "clean")
    n, failed = 0, True
    while failed:
        n += 1
        path = tmp_path / str(n)
        try:
            three_shards(path, FailingDisk(n, number))
            failed = False
        except StorageError as e:
            assert "\n" not in str(e)
            if path.exists():
                ShardSet(path).verify()
        three_shards(path)
        sweep(path, older_than=-1)
        assert files(path) == wanted, n
    assert n > 30, "the loop must have walked through every write"


def test_left_over_temporary_files_are_swept_by_age(tmp_path: Path):
    three_shards(tmp_path)
    orphan = tmp_path / "data" / ".x.parquet.1.2.tmp"
    orphan.write_bytes(b"half")
    assert sweep(tmp_path) == 0 and sweep(tmp_path, older_than=-1) == 1 and not orphan.exists()


def test_hugging_face_datasets_reads_the_files(tmp_path: Path):
    from datasets import load_dataset

    three_shards(tmp_path / "set")
    found = load_dataset(
        "parquet", data_files=str(tmp_path / "set/data/*.parquet"), split="train", cache_dir=str(tmp_path / "hf")
    )
    assert found.num_rows == 150 and found[0]["candidate_id"] == "c0000"
