"""Reading rows from outside: Parquet, JSONL, folders, globs, shard sets, Hub ids. Strangers' files are hostile.

A file that cannot be read at all raises InputError. A row that cannot be used is set aside with a reason and the
place it stood, and the others go on. Text is never changed on the way in.
"""

import glob
import gzip
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from curation.errors import InputError
from curation.shards import ShardSet, is_shard_set

SUFFIXES = (".parquet", ".jsonl", ".jsonl.gz", ".json", ".ndjson")
LONGEST_LINE = 16 * 2**20  # bytes of one JSONL line or row's texts
BATCH_ROWS = 1024
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


class Found(NamedTuple):
    """One row, or why it is set aside."""

    place: str  # file:line or file:row
    row: Mapping[str, Any] | None
    reason: str = ""
    detail: str = ""


def read_rows(spec: str, split: str | None = None) -> Iterator[Found]:
    """Every row of `spec`, in the order of sorted file names. Raises InputError."""
    path = Path(spec)
    if path.is_dir() and is_shard_set(path):
        yield from _shard_set(path)
        return
    files = list_files(spec)
    if files is None:
        yield from _hub(spec, split)
        return
    for file in files:
        name = file.name
        if file.suffix == ".parquet":
            yield from _parquet(file, name)
        elif file.suffix == ".json":
            yield from _json(file, name)
        else:
            yield from _jsonl(file, name)


def list_files(spec: str) -> list[Path] | None:
    """Files a spec names, sorted; None where it can only be a Hub id. Raises InputError where there is nothing."""
    path = Path(spec)
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.name.endswith(SUFFIXES) and not p.name.startswith((".", "_")))
    elif path.is_file():
        if not path.name.endswith(SUFFIXES):
            raise InputError(spec, f"a {path.suffix or 'nameless'} file", ", ".join(SUFFIXES), "convert it")
        files = [path]
    elif any(c in spec for c in "*?["):
        files = sorted(Path(p) for p in glob.glob(spec, recursive=True) if Path(p).is_file())
    elif HUB_ID.fullmatch(spec) and not spec.endswith(SUFFIXES) and not Path(spec.split("/")[0]).exists():
        return None
    else:
        raise InputError(spec, "nothing there", "a file, folder, glob, shard set or Hub id", "check the path")
    if not files:
        raise InputError(spec, "no data file in it", ", ".join(SUFFIXES), "check the path")
    return files


def _shard_set(path: Path) -> Iterator[Found]:
    at = 0
    for table in ShardSet(path).tables():
        for row in table.to_pylist():
            yield Found(f"{path.name}:{at}", row)
            at += 1


def _parquet(path: Path, name: str) -> Iterator[Found]:
    try:
        file = pq.ParquetFile(path, page_checksum_verification=True)
        _refuse_types(file.schema_arrow, name)
        at = 0
        for batch in file.iter_batches(BATCH_ROWS):
            yield from _batch(batch, name, at)
            at += batch.num_rows
    except (OSError, pa.ArrowException) as e:
        raise InputError(name, _short(e), "a whole Parquet file", "fetch or write it again") from e
    if at == 0:
        raise InputError(name, "no row", "at least one", "check the file")


def _batch(batch: pa.RecordBatch, name: str, at: int) -> Iterator[Found]:
    """Rows of one batch. Parquet does not check that strings are UTF-8, so we do; row by row where one is not."""
    try:
        batch.validate(full=True)
        rows: list[Any] = batch.to_pylist()
    except (pa.ArrowInvalid, UnicodeDecodeError):
        rows = [_one_row(batch.slice(i, 1)) for i in range(batch.num_rows)]
    for i, row in enumerate(rows):
        if row is None:
            yield Found(f"{name}:{at + i}", None, "not_utf8", "a text with bytes that are no UTF-8")
        else:
            yield Found(f"{name}:{at + i}", row)


def _one_row(batch: pa.RecordBatch) -> Any:
    try:
        batch.validate(full=True)
        return batch.to_pylist()[0]
    except (pa.ArrowInvalid, UnicodeDecodeError):
        return None


def _refuse_types(schema: pa.Schema, name: str) -> None:
    for field in schema:
        if isinstance(field.type, pa.BaseExtensionType):
            raise InputError(name, f"extension type in column {field.name}", "plain Arrow types", "store it as text")


def _jsonl(path: Path, name: str) -> Iterator[Found]:
    unpack = gzip.open if path.name.endswith(".gz") else open
    seen = 0
    try:
        with unpack(path, "rb") as file:
            number = 0
            while line := file.readline(LONGEST_LINE + 1):
                number += 1
                if len(line) > LONGEST_LINE:
                    while line and not line.endswith(b"\n"):  # skip the rest of the long line
                        line = file.readline(LONGEST_LINE)
                    yield Found(f"{name}:{number}", None, "too_long", f"a line of over {LONGEST_LINE} bytes")
                elif line.strip():
                    yield parse_line(line.lstrip(b"\xef\xbb\xbf") if number == 1 else line, f"{name}:{number}")
                seen += 1
    except (OSError, EOFError, gzip.BadGzipFile) as e:
        raise InputError(name, _short(e), "a readable JSONL file", "check or fetch it again") from e
    if not seen:
        raise InputError(name, "an empty file", "at least one row", "check the file")


def _json(path: Path, name: str) -> Iterator[Found]:
    """A .json file: one list of rows, or JSONL under another name."""
    try:
        data = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    except OSError as e:
        raise InputError(name, _short(e), "a readable JSON file", "check the path") from e
    if not data.lstrip().startswith(b"["):
        yield from _jsonl(path, name)
        return
    whole = parse_line(data, name, limit=None)
    rows = whole.row
    if not isinstance(rows, list):
        raise InputError(name, whole.detail or whole.reason, "a JSON list of objects", "mend the file")
    for i, row in enumerate(rows):
        if isinstance(row, dict):
            yield check_text(row, f"{name}:{i}")
        else:
            yield Found(f"{name}:{i}", None, "not_an_object", f"a {type(row).__name__}")


def parse_line(line: bytes, place: str, limit: int | None = LONGEST_LINE) -> Found:
    """One JSON text, strictly: UTF-8, no NaN or Infinity, no repeated keys, no lone surrogates, an object."""
    try:
        row = json.loads(line.decode("utf-8"), parse_constant=_no_constant, object_pairs_hook=_no_repeats)
    except UnicodeDecodeError as e:
        return Found(place, None, "not_utf8", f"byte {e.start}")
    except json.JSONDecodeError as e:
        return Found(place, None, "malformed_json", f"{e.msg} at character {e.pos}")
    except RecursionError:
        return Found(place, None, "malformed_json", "nested too deep")
    except ValueError as e:
        return Found(place, None, "malformed_json", str(e)[:120])
    if limit is None:
        return Found(place, row)
    if not isinstance(row, dict):
        return Found(place, None, "not_an_object", f"a {type(row).__name__}")
    return check_text(row, place)


def check_text(row: Mapping[str, Any], place: str) -> Found:
    """A row whose every text can be written as UTF-8, else the reason."""
    try:
        json.dumps(row, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return Found(place, None, "lone_surrogate", "half a character (a lone surrogate)")
    except RecursionError:
        return Found(place, None, "malformed_json", "nested too deep")
    return Found(place, row)


def _hub(spec: str, split: str | None) -> Iterator[Found]:
    from datasets import load_dataset

    try:
        loaded = load_dataset(spec, split=split or "train")
    except (OSError, ValueError, RuntimeError) as e:
        raise InputError(
            spec,
            _short(e),
            "a data set on the Hub (or a path that exists)",
            "check the name, the split and the network",
        ) from e
    for i, row in enumerate(loaded):
        yield Found(f"{spec}:{i}", row)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
