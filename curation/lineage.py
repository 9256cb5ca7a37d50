"""`thresher show` and `thresher trace`: what is in a set or run, and where a row or a checkpoint comes from.

Text from data is shown with control characters, bidirectional marks and other invisible ones escaped.
"""

import json
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from curation.errors import InputError
from curation.shards import ShardSet, is_shard_set

SAMPLES = 3
SHOWN = 300  # characters of a value


def show(path: str) -> str:
    """What a shard set, run folder or data file holds, as plain text. Raises InputError."""
    at = Path(path)
    if (at / "run.json").is_file():
        return "\n".join(_run_lines(at))
    if is_shard_set(at):
        return "\n".join(_set_lines(at))
    return "\n".join(_file_lines(path))


def trace(what: str, run: str | None = None) -> str:
    """The way to a checkpoint (a folder with thresher.json) or to a row (the start of its id) in a run."""
    folder = Path(what)
    if (folder / "thresher.json").is_file():
        return "\n".join(_checkpoint_lines(folder, run))
    if run is None:
        raise InputError("trace", f"row id {what} and no run", "--run DIR", "name the run folder")
    return "\n".join(_row_lines(what, Path(run)))


def _run_lines(run: Path) -> Iterator[str]:
    record = _read_json(run / "run.json")
    yield f"run {run}   recipe {record['recipe'] or '(none)'}"
    yield f"input    {record['input']['rows']} rows   {_listed(record['input']['reasons'])}"
    for stage in record["stages"]:
        yield f"stage    {stage['number']:02d} {visible(stage['repr'])}"
        yield f"         {stage['rows_in']} -> {stage['rows_out']}   {_listed(stage['reasons'])}"
        if stage["counters"]:
            yield "         " + ", ".join(f"{k} {v:g}" for k, v in stage["counters"].items())
    for name in record["pipelines"]:
        state = "" if (run / name / "_SUCCESS.json").is_file() else "   (unfinished)"
        yield f"set      {run / name}{state}"
        if not state:
            yield from ("         " + line for line in _set_lines(run / name))


def _set_lines(path: Path) -> Iterator[str]:
    shards = ShardSet(path)
    commits = shards.commits()
    rows, left = sum(c.rows for c in commits.values()), sum((c.drops or {}).get("rows", 0) for c in commits.values())
    state = "finished, verified" if shards.finished() else "unfinished"
    shards.verify()
    yield f"shard set {path}   {rows} rows in {len(commits)} shards, {left} rows left   {state}"
    reasons: dict[str, int] = {}
    for commit in commits.values():
        for reason, n in ((commit.drops or {}).get("reasons") or {}).items():
            reasons[reason] = reasons.get(reason, 0) + n
    if reasons:
        yield _listed(reasons)
    if commits:
        yield from _table_lines(shards.read(next(iter(commits.values()))))


def _file_lines(path: str) -> Iterator[str]:
    from curation.source import read_messages, read_prompts

    read = read_prompts(path)
    if read.rows.num_rows == 0:
        read = read_messages(path)
    yield f"{path}   {read.rows.num_rows} usable rows   {_listed(read.reasons())}"
    for place, reason, detail in zip(
        *(read.dropped[c].to_pylist()[:SAMPLES] for c in read.dropped.column_names), strict=True
    ):
        yield f"set aside  {visible(place)}: {reason} {visible(detail)}"
    yield from _table_lines(read.rows)


def _table_lines(table: pa.Table) -> Iterator[str]:
    for field in table.schema:
        yield f"  {field.name:18} {field.type}"
    for row in table.slice(0, SAMPLES).to_pylist():
        yield "  ---"
        for name, value in row.items():
            if value is not None:
                text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
                yield f"  {name:18} {visible(text)}"


def _checkpoint_lines(folder: Path, run: str | None) -> Iterator[str]:
    record = _read_json(folder / "thresher.json")
    yield f"checkpoint {folder}   {record['kind']}, {record['steps']} steps, {record['rows']} rows, loss {record['final_loss']}"
    yield f"start      {visible(str(record['config']['model']))}"
    yield f"data       {visible(record['data'])}   sha256 {record['data_sha'][:12]}"
    data = Path(record["data"])
    home = Path(run) if run else data.parent
    if not (home / "run.json").is_file():
        yield "run        not found beside the data; name it with --run"
        return
    yield from _run_lines(home)


def _row_lines(start: str, run: Path) -> Iterator[str]:
    """Prompt → its pairs → its candidates with scores → where each went, of every row whose id begins with `start`."""
    record = _read_json(run / "run.json")
    folders = [("Input", run / record["input"]["folder"])] + [(s["stage"], run / s["folder"]) for s in record["stages"]]
    prompt = _find_prompt(start, folders)
    rows: dict[str, dict[str, Any]] = {}
    ways: dict[str, list[str]] = {}
    for name, folder in folders:
        shards = ShardSet(folder)
        for commit in shards.commits().values():
            for row in _rows_of(shards.read(commit), prompt):
                key = row.get("pair_id") or row.get("candidate_id") or row["prompt_id"]
                rows.setdefault(key, {}).update({k: v for k, v in row.items() if v is not None})
                ways.setdefault(key, []).append(name)
        for left in shards.dropped().to_pylist():
            if left["row_id"] in rows or left["row_id"] == prompt:
                ways.setdefault(left["row_id"], []).append(
                    f"{name}: left, {left['reason']} {visible(left['detail'])}".rstrip()
                )
    yield f"prompt     {prompt}   {' -> '.join(ways.get(prompt, []))}"
    asked = rows.get(prompt) or next(iter(rows.values()), {})  # a run that began with answers has no row of the prompt
    for turn in asked.get("prompt", []):
        yield f"           {turn['role']}: {visible(turn['content'])}"
    yield f"truth      {visible(str(asked.get('ground_truth')))}"
    shown = {key for key in rows if key != prompt and (key.startswith(start) or prompt.startswith(start))}
    for key in [key for key in rows if "pair_id" in rows[key] and key in shown]:
        yield f"pair       {key}   {rows[key]['kind']}   margin {rows[key].get('margin')}"
        for side in ("chosen", "rejected"):
            yield f"           {side:8} {rows[key].get(f'{side}_id')}   {visible(rows[key][side][-1]['content'])}"
            shown.add(str(rows[key].get(f"{side}_id")))
        yield f"           {' -> '.join(dict.fromkeys(ways[key]))}"
    for key, row in rows.items():
        if key in shown and key != prompt and "pair_id" not in row:
            yield f"candidate  {key}   score {row.get('score')}   {row.get('verdict', '')}   {row.get('model', '')}"
            yield f"           {visible(row.get('completion', ''))}"
            yield f"           {' -> '.join(dict.fromkeys(ways[key]))}"


def _find_prompt(start: str, folders: list[tuple[str, Path]]) -> str:
    """The one prompt that has the id, or a row with it. Raises InputError where none or several begin so."""
    found: set[str] = set()
    for _, folder in folders:
        for commit in ShardSet(folder).commits().values():
            table = ShardSet(folder).read(commit)
            prompts = table["prompt_id"].to_pylist()
            names = [n for n in ("pair_id", "candidate_id", "prompt_id") if n in table.column_names]
            own = table[names[0]].to_pylist()
            found |= {p for p, i in zip(prompts, own, strict=True) if p.startswith(start) or i.startswith(start)}
    if len(found) != 1:
        what = "no row" if not found else f"rows of {len(found)} prompts"
        raise InputError("trace", f"{what} whose id begins with {start}", "the start of one id", "give more of the id")
    return found.pop()


def _rows_of(table: pa.Table, prompt: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = table.filter(pa.compute.equal(table["prompt_id"], prompt)).to_pylist()
    return rows


def _read_json(path: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as e:
        raise InputError(str(path), "no readable record", "a finished run or checkpoint", "run it first") from e
    return record


def _listed(reasons: Mapping[str, int]) -> str:
    return "left: " + ", ".join(f"{visible(k)} {v}" for k, v in sorted(reasons.items())) if reasons else ""


def visible(text: str) -> str:
    """Text with everything that is not seen escaped, on one line, cut: "a\\x1b[2Jb" cannot clear the screen."""
    shown = "".join(c if _seen(c) else c.encode("unicode_escape").decode("ascii") for c in text[: SHOWN + 1])
    return shown if len(text) <= SHOWN else shown[:SHOWN] + "…"


def _seen(c: str) -> bool:
    return c == " " or unicodedata.category(c)[0] not in "CZ"
