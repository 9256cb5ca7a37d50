"""Pairs from a file, a table or anywhere else into a corpus.

Parquet files of texts, and shards of one answer a side, are read column by column; whatever is laid out otherwise, or
holds a row that looks odd, row by row through `pair_source`, which knows the layouts and the reasons.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.audit import blobs
from curation.audit.corpus import Batch, Builder, Corpus, booleans, bytes_of, offsets_of, whole_numbers
from curation.errors import InputError
from curation.files import Found, list_files, read_rows
from curation.pair_source import SIDES, dialogue, imported_id, pair_row
from curation.schema import Message, canonical_json, pair_id, prompt_id
from curation.shards import ShardSet, is_shard_set
from curation.source import CONTEXT_COLUMNS, CONVERSATIONS, PROMPT_COLUMNS, BadRow, text_or_none

AT_ONCE = 8192  # rows of a batch
LABEL_LENGTH = 200  # characters of the longest value of a column that is taken for a label
NO_LABEL = re.compile("score|rating|logps|logprob|_id|ids|text|length|tokens|margin|weight|offset")
OWN = {"pair_id", "prompt_id", "kind", "tools", "messages", *SIDES, *PROMPT_COLUMNS, *CONTEXT_COLUMNS, *CONVERSATIONS}
TURNS = re.compile(r"(?:\A|\n\n)(system|user|assistant|tool): ")


class Read(NamedTuple):
    """A corpus and, for the rows that are not in it, how many left for which reason."""

    corpus: Corpus
    reasons: dict[str, int]


def read_corpus(spec: str, limit: int | None = None) -> Read:
    """Pairs of a file, folder, glob, shard set or Hub id. Raises InputError."""
    reasons: Counter[str] = Counter()
    builder = Builder()
    columns: set[str] = set()
    for batch in _batches(spec, limit, reasons, columns):
        builder.add(batch)
    corpus = builder.finish()
    if len(corpus.repeated):
        reasons["duplicate_pair"] = len(corpus.repeated)
    if not corpus.pairs:
        why = next(iter(reasons.most_common(1)), ("no rows", 0))
        raise InputError(
            spec, f"no pairs ({why[0]}: {why[1]} rows; columns {', '.join(sorted(columns)) or 'none'})",
            "rows with chosen and rejected answers", "see `thresher show` for what is in it",
        )  # fmt: skip
    return Read(corpus, dict(sorted(reasons.items(), key=lambda r: (-r[1], r[0]))))


def corpus_of(rows: pa.Table) -> Corpus:
    """A corpus of rows of schema.DPO. Raises InputError where there is no pair among them."""
    builder = Builder()
    for batch in batches_of(rows.to_batches(AT_ONCE)):
        builder.add(batch)
    corpus = builder.finish()
    if not corpus.pairs:
        raise InputError(
            "audit", "no pairs", "rows with chosen and rejected answers", "see the reasons they were left out"
        )
    return corpus


def batches_of(rows: Iterable[pa.RecordBatch]) -> Iterator[Batch]:
    """Rows of any plain layout on their way into a corpus; what cannot be used is left out."""
    return _of_table(rows, 0, "rows", Counter())


def pair_ids_of(corpus: Corpus, pairs: Sequence[int]) -> list[str]:
    """The ids of some pairs: given, or what `pair_source` would give them."""
    wanted = np.asarray(pairs, np.int64)
    given = corpus.pair_ids.take(whole_numbers(wanted)).to_pylist()
    known = corpus.prompt_ids.take(whole_numbers(wanted)).to_pylist()
    missing = {int(p): pid for p, name, pid in zip(wanted, given, known, strict=True) if name is None}
    made: dict[int, str] = {}
    for block in batched(sorted(missing), AT_ONCE):  # so that few texts are held at once
        made |= {pair: row_id(missing[pair], *texts) for pair, texts in corpus.texts_of(block).items()}
    return [name if name is not None else made[int(p)] for p, name in zip(wanted, given, strict=True)]


def row_id(pid: str | None, prompt: bytes, chosen: bytes, rejected: bytes) -> str:
    """Id of a pair whose sides came without ids: that of `pair_source.pair_row`, made from bytes, for there may be many."""
    if pid is None and (b":" not in prompt or dialogue(prompt.decode()) is None):
        pid = _hash(b'["prompt",[["user","%b"]],null,null]' % _escaped(prompt))
    elif pid is None:
        pid = prompt_id(dialogue(prompt.decode()) or [])
    if not pid.isalnum():
        return pair_id(pid, *(imported_id(pid, answer.decode()) for answer in (chosen, rejected)))
    name = pid.encode()
    sides = [_hash(b'["imported","%b","%b"]' % (name, _escaped(answer))).encode() for answer in (chosen, rejected)]
    return _hash(b'["pair","%b","%b","%b"]' % (name, *sides))


CONTROLS = bytes({*range(32)} - {*b"\n\r\t"})


def _escaped(text: bytes) -> bytes:
    """The inside of a JSON string of canonical JSON."""
    if len(text.translate(None, CONTROLS)) != len(text):
        return canonical_json(text.decode()).encode()[1:-1]
    plain = text.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    return plain.replace(b"\n", b"\\n").replace(b"\r", b"\\r").replace(b"\t", b"\\t")


def _hash(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()[:32]


def prompt_text(messages: Sequence[Message]) -> str:
    """A prompt as one text: its content alone, or turns under their roles."""
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n\n".join(f"{m['role']}: {m['content']}" for m in messages)


def prompt_messages(text: str) -> list[Message]:
    """The messages that `prompt_text` made a text of. A turn that itself holds a line "user: " reads as two."""
    parts = TURNS.split(text)
    if len(parts) < 5 or parts[0]:
        return dialogue(text) or [{"role": "user", "content": text}]
    return [{"role": role, "content": content} for role, content in zip(parts[1::2], parts[2::2], strict=True)]


def _batches(spec: str, limit: int | None, reasons: Counter[str], columns: set[str]) -> Iterator[Batch]:
    path = Path(spec)
    if limit is None and path.is_dir() and is_shard_set(path):
        at = 0
        for table in ShardSet(path).tables():
            yield from _of_table(table.to_batches(AT_ONCE), at, path.name, reasons)
            at += table.num_rows
        return
    files = None if path.is_dir() and is_shard_set(path) else list_files(spec)
    if files is None or limit is not None or any(f.suffix != ".parquet" for f in files):
        found = read_rows(spec)
        yield from _row_by_row(islice(found, limit), 0, reasons, columns)
        return
    at = 0
    for file in files:
        try:
            parquet = pq.ParquetFile(file, page_checksum_verification=True, pre_buffer=False)
            columns.update(parquet.schema_arrow.names)
            names = [n for n in parquet.schema_arrow.names if not n.endswith("_token_ids")]
            yield from _of_table(parquet.iter_batches(AT_ONCE, columns=names), at, file.name, reasons)
            at += parquet.metadata.num_rows
        except (OSError, pa.ArrowException) as e:
            raise InputError(
                file.name, " ".join(str(e).split())[:160], "a whole Parquet file", "fetch or write it again"
            ) from e


def _of_table(batches: Iterable[pa.RecordBatch], at: int, name: str, reasons: Counter[str]) -> Iterator[Batch]:
    """Batches column by column where that reads the same as row by row, and the odd rows among them row by row."""
    for batch in batches:
        texts = _texts(batch)
        if texts is None:
            odd = np.ones(batch.num_rows, bool)
        else:
            odd = _odd(texts)
            if not odd.all():
                plain = pa.array(~odd)
                kept = batch.filter(plain) if odd.any() else batch
                sides = (texts[0].filter(plain), texts[1].filter(plain), texts[2].filter(plain)) if odd.any() else texts
                yield Batch(
                    sides, at + np.flatnonzero(~odd), _given(kept, "pair_id"), _given(kept, "prompt_id"), labels(kept),
                )  # fmt: skip
        if odd.any():
            rows = batch.filter(pa.array(odd)).to_pylist()
            places = (at + np.flatnonzero(odd)).tolist()
            found = (Found(f"{name}:{p}", row) for p, row in zip(places, rows, strict=True))
            yield from _row_by_row(found, at, reasons, set(), places)
        at += batch.num_rows


def _texts(batch: pa.RecordBatch) -> tuple[pa.Array, pa.Array, pa.Array] | None:
    """Prompt, chosen and rejected answer as texts, or None where the layout is not one of the two that are plain."""
    names = batch.schema.names
    if any(c in names for c in (*CONVERSATIONS, *CONTEXT_COLUMNS)) or not all(s in names for s in SIDES):
        return None
    if "pair_id" not in names and any(f"{s}_id" in names for s in SIDES):
        return None
    prompt = next((c for c in PROMPT_COLUMNS if c in names), None)
    if prompt is None:
        return None
    found = []
    for name in (prompt, *SIDES):
        texts = _plain(batch.column(name), several=name == prompt)
        if texts is None:
            return None
        found.append(texts)
    return found[0], found[1], found[2]


def _plain(column: pa.Array, several: bool) -> pa.Array | None:
    """A column of texts, or of lists of one message, as texts. With `several` longer lists are joined."""
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return column.cast(pa.large_string())
    if not (pa.types.is_list(kind) and pa.types.is_struct(kind.value_type)):
        return None
    if {f.name for f in kind.value_type} != {"role", "content"} or column.null_count:
        return None
    turns = column.flatten()
    role, content = turns.field("role"), turns.field("content").cast(pa.large_string())
    if not (pa.types.is_string(role.type) and turns.null_count == content.null_count == role.null_count == 0):
        return None
    lengths = np.asarray(column.value_lengths())
    if (lengths == 1).all():
        return content if several or pc.all(pc.equal(role, "assistant")).as_py() else None
    if not several:
        return None
    whole: list[list[Message]] = column.to_pylist()
    return pa.array([prompt_text(m) for m in whole], pa.large_string())


def _odd(texts: tuple[pa.Array, pa.Array, pa.Array]) -> np.ndarray:
    """bool (n,): rows that are no plain pair: nothing on a side, both sides the same, bytes that are no text."""
    odd = np.zeros(len(texts[0]), bool)
    for column in texts:
        try:
            column.validate(full=True)
        except (pa.ArrowInvalid, UnicodeDecodeError):
            return np.ones(len(odd), bool)
        odd |= booleans(column.is_null())
        odd |= blobs.blank(bytes_of(column), offsets_of(column))
    found: np.ndarray = odd | booleans(pc.equal(texts[1], texts[2]))
    return found


def _row_by_row(
    found: Iterator[Found], at: int, reasons: Counter[str], columns: set[str], places: Sequence[int] | None = None
) -> Iterator[Batch]:
    """Batches of rows read by `pair_source`. `places` says where each stood; without it they are counted from `at`."""
    kept: list[tuple[int, dict[str, Any], Mapping[str, Any]]] = []
    for i, one in enumerate(found):
        columns.update(one.row or ())
        row = pair_row(one.row, "") if one.row is not None else BadRow(one.reason)
        if isinstance(row, BadRow):
            reasons[row.reason] += 1
        else:
            kept.append((places[i] if places else at + i, row, one.row or {}))
        if len(kept) == AT_ONCE:
            yield _batch(kept)
            kept = []
    if kept:
        yield _batch(kept)


def _batch(kept: list[tuple[int, dict[str, Any], Mapping[str, Any]]]) -> Batch:
    made = [row for _, row, _ in kept]
    texts = [[prompt_text(r["prompt"]) for r in made], *([r[s][-1]["content"] for r in made] for s in SIDES)]
    names = dict.fromkeys(n for _, _, given in kept for n in given)
    rest = {n: [_label(given.get(n)) for _, _, given in kept] for n in names if _may_label(n)}
    a, b, c = (pa.array(t, pa.large_string()) for t in texts)
    return Batch(
        (a, b, c), np.array([p for p, _, _ in kept], np.int64), pa.array([r["pair_id"] for r in made], pa.string()),
        pa.array([text_or_none(given.get("prompt_id")) for _, _, given in kept], pa.string()),
        {n: pa.array(v, pa.string()) for n, v in rest.items() if any(x is not None for x in v)},
    )  # fmt: skip


def labels(batch: pa.RecordBatch) -> dict[str, pa.Array]:
    """The columns that may say something of a pair: models, source, position, annotator; short texts and whole numbers."""
    found = {}
    for name in batch.schema.names:
        column = batch.column(name)
        kind = column.type
        if _may_label(name) and (pa.types.is_string(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
            text = column.cast(pa.string())
            longest = pc.max(pc.binary_length(text)).as_py()
            if longest is not None and longest <= LABEL_LENGTH:
                found[name] = text
    return found


def _may_label(name: str) -> bool:
    return name not in OWN and not NO_LABEL.search(name)


def batched(pairs: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for at in range(0, len(pairs), size):
        yield pairs[at : at + size]


def _label(value: Any) -> str | None:
    return str(value) if isinstance(value, str | int | bool) and len(str(value)) <= LABEL_LENGTH else None


def _given(batch: pa.RecordBatch, name: str) -> pa.Array:
    if name not in batch.schema.names:
        return pa.nulls(batch.num_rows, pa.string())
    return batch.column(name).cast(pa.string())
