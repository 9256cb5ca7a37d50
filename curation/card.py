"""The data card of a finished set: README.md with the Hub's YAML header, counts per stage, drop reasons, licences."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from curation.durable import Disk, put
from curation.shards import ShardSet


def write_card(
    folder: Path, name: str, success: Mapping[str, Any], stages: Sequence[Mapping[str, Any]], source: ShardSet
) -> None:
    """Write `folder`/README.md from the set's own record, the stages that made it and the run's input."""
    rows = source.table()
    lines = [
        *_header(name, int(success["rows"])),
        f"# {name}",
        "",
        f"{success['rows']} rows in {len(success['shards'])} shards, made by Thresher from {rows.num_rows} rows of "
        f"{', '.join(_code(s) for s in _distinct(rows, 'source')) or 'an unnamed source'}.",
        "",
        "## How it was made",
        "| stage | in | out | left, and why |",
        "|---|---:|---:|---|",
        *(_stage(s) for s in stages),
        "",
        "```",
        *(str(s["repr"]).replace("`", "'") for s in stages),
        "```",
        "",
        "## Licences seen",
        *(
            [f"- {_code(x)}" for x in _licences(rows)]
            or ["None stated in the input. Look at the sources before you share this."]
        ),
        "",
        "## Columns",
        "```",
        str(success["schema"]),
        "```",
        "",
    ]
    put(Disk(), folder / "README.md", "\n".join(lines).encode())


def _header(name: str, rows: int) -> list[str]:
    size = next(label for limit, label in _SIZES if rows < limit)
    return [
        "---", "configs:", f"- config_name: {name}", "  data_files:", "  - split: train", "    path: data/*.parquet",
        "  default: true", "size_categories:", f"- {size}", "tags:", "- thresher", "---",
    ]  # fmt: skip


_SIZES = (
    (1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"),
    (float("inf"), "1M<n<10M"),
)  # fmt: skip


def _stage(stage: Mapping[str, Any]) -> str:
    reasons = ", ".join(f"{k} {v}" for k, v in stage["reasons"].items())
    return f"| {stage['stage']} | {stage['rows_in']} | {stage['rows_out']} | {reasons} |"


def _distinct(rows: Any, column: str, most: int = 20) -> list[str]:
    return [] if column not in rows.column_names else sorted({v for v in rows[column].to_pylist() if v})[:most]


def _licences(rows: Any) -> list[str]:
    """Values of a licence column of the input, which reading keeps in `extra`."""
    import json

    if "extra" not in rows.column_names:
        return []
    seen = set()
    for text in set(rows["extra"].to_pylist()) - {None}:
        extra = json.loads(text)
        seen |= {str(extra[k]) for k in ("licence", "license") if extra.get(k)}
    return sorted(seen)[:20]


def _code(text: str) -> str:
    """Text from outside as inline code that cannot leave it."""
    return "`" + "".join(c if c.isprintable() and c != "`" else "'" for c in text)[:120] + "`"
