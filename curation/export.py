"""`thresher export`: shards as other trainers want them. What loads as it is, is written as it is.

trl            sft, dpo          the shard's own columns, Parquet
verl           sft; dpo as its reward-model strings
openrlhf       sft as input and output; dpo with its keys
llama-factory  OpenAI messages; chosen and rejected single messages; dataset_info.json
axolotl        messages; chosen and rejected single messages; the datasets: lines of its config
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from curation.errors import InputError
from curation.files import read_rows
from curation.pair_source import read_pairs
from curation.source import read_messages
from curation.stage import Outcome

Target = Literal["trl", "verl", "openrlhf", "llama-factory", "axolotl"]
Kind = Literal["sft", "dpo"]
AXOLOTL = "datasets:\n  - path: train.jsonl\n    ds_type: json\n"
Row = dict[str, Any]


def export(spec: str, to: Target, out: str) -> list[Path]:
    """Write a shard set in the layout `to` wants; the files made. Raises InputError."""
    kind = kind_of(spec)
    read = read_messages(spec) if kind == "sft" else read_pairs(spec)
    if read.rows.num_rows == 0:
        raise InputError(spec, f"no usable row ({read.reasons()})", "sft or dpo rows", "look at the reasons")
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    made = WRITERS[to](read, kind, folder)
    return made


def kind_of(spec: str) -> Kind:
    """What a data set holds, by the columns of its first row. Raises InputError."""
    first = next((f.row for f in read_rows(spec) if f.row is not None), None)
    if first is None:
        raise InputError(spec, "no readable row", "sft or dpo rows", "check the path")
    return "dpo" if "chosen" in first and "rejected" in first else "sft"


def _without_empty(rows: pa.Table) -> pa.Table:
    """The table without the columns that are null throughout: a null `tools` or `margin` means something to a reader."""
    return rows.select([n for n in rows.column_names if rows[n].null_count < rows.num_rows])


def to_trl(read: Outcome, kind: Kind, folder: Path) -> list[Path]:
    return [_parquet(_without_empty(read.rows), folder / "train.parquet")]


def to_verl(read: Outcome, kind: Kind, folder: Path) -> list[Path]:
    if kind == "sft":
        return [_parquet(_without_empty(read.rows), folder / "train.parquet")]
    rows = [
        {"prompt": plain_text(r["prompt"]), **{s: r[s][0]["content"] for s in ("chosen", "rejected")}}
        for r in _rows(read)
    ]
    return [_parquet(pa.Table.from_pylist(rows), folder / "train.parquet")]


def to_openrlhf(read: Outcome, kind: Kind, folder: Path) -> list[Path]:
    """`--data.input_key prompt --data.output_key response`, and `--data.apply_chat_template` for both kinds."""
    if kind == "dpo":
        return [
            _jsonl([{n: r[n] for n in ("prompt", "chosen", "rejected")} for r in _rows(read)], folder / "train.jsonl")
        ]
    rows = [{"prompt": r["messages"][:-1], "response": r["messages"][-1]["content"]} for r in _rows(read)]
    return [_jsonl(rows, folder / "train.jsonl")]


def to_llama_factory(read: Outcome, kind: Kind, folder: Path) -> list[Path]:
    """A file and its entry in dataset_info.json; `dataset: thresher` in LLaMA-Factory's config names it."""
    tags = {"role_tag": "role", "content_tag": "content"}
    tags |= {f"{role}_tag": role for role in ("user", "assistant", "system")}
    info: Row = {"file_name": "train.json", "formatting": "sharegpt", "tags": tags}
    if kind == "dpo":
        info |= {"ranking": True, "columns": {"messages": "messages", "chosen": "chosen", "rejected": "rejected"}}
        rows = [{"messages": r["prompt"], **{s: r[s][0] for s in ("chosen", "rejected")}} for r in _rows(read)]
    else:
        info["columns"] = {"messages": "messages"} | ({"tools": "tools"} if _has_tools(read) else {})
        rows = [
            {"messages": r["messages"], **({"tools": r["tools"] or ""} if _has_tools(read) else {})}
            for r in _rows(read)
        ]
    listing = folder / "dataset_info.json"
    listing.write_text(json.dumps({"thresher": info}, indent=1) + "\n")
    (folder / "train.json").write_text(json.dumps(rows, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return [folder / "train.json", listing]


def to_axolotl(read: Outcome, kind: Kind, folder: Path) -> list[Path]:
    """A JSONL file, and the `datasets:` entry that reads it (axolotl.yaml)."""
    if kind == "dpo":
        rows = [{"messages": r["prompt"], **{s: r[s][0] for s in ("chosen", "rejected")}} for r in _rows(read)]
        entry = f"rl: dpo\n{AXOLOTL}    split: train\n    type: chat_template.default\n"
    else:
        rows = [{"messages": r["messages"]} for r in _rows(read)]
        entry = f"{AXOLOTL}    type: chat_template\n    field_messages: messages\n"
        entry += "    roles_to_train: [assistant]\n    train_on_eos: turn\n"
    config = folder / "axolotl.yaml"
    config.write_text(entry)
    return [_jsonl(rows, folder / "train.jsonl"), config]


WRITERS: Mapping[str, Callable[[Outcome, Kind, Path], list[Path]]] = {
    "trl": to_trl, "verl": to_verl, "openrlhf": to_openrlhf, "llama-factory": to_llama_factory, "axolotl": to_axolotl,
}  # fmt: skip


def plain_text(prompt: list[dict[str, str]]) -> str:
    """A prompt as one text: its content alone, or with roles where there are several turns."""
    return prompt[0]["content"] if len(prompt) == 1 else "\n\n".join(f"{m['role']}: {m['content']}" for m in prompt)


def _rows(read: Outcome) -> list[Row]:
    rows: list[Row] = read.rows.to_pylist()
    return rows


def _has_tools(read: Outcome) -> bool:
    return bool(read.rows["tools"].null_count < read.rows.num_rows)


def _jsonl(rows: list[Row], path: Path) -> Path:
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8")
    return path


def _parquet(rows: pa.Table, path: Path) -> Path:
    pq.write_table(rows, path, compression="zstd")
    return path
