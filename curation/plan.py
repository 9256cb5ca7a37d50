"""What a run will do: pipelines as one tree of stages, the folder of each, what is there already, and why the rest runs."""

import hashlib
import itertools
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from curation.errors import InputError, PipelineError
from curation.schema import PROMPTS, content_id
from curation.shards import SUCCESS, ShardSet, is_shard_set
from curation.stage import Pipeline, Stage, fingerprint, lint, plain, shown

INPUT = "Input"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")  # a pipeline's name is its folder's


@dataclass(frozen=True)
class Node:
    """One stage in its place. Two pipelines with the same beginning share its nodes."""

    number: int  # depth: 1 for the first stage
    stage: Stage
    fingerprint: str
    upstream: str  # fingerprint of what feeds it
    folder: Path
    whole: bool  # it, or a stage above it, needs all rows at once

    @property
    def name(self) -> str:
        return type(self.stage).__name__

    def described(self, shards: int) -> dict[str, Any]:
        """The content of plan.json: what makes this folder what it is."""
        return {
            "stage": self.name, "settings": plain(self.stage), "fingerprint": self.fingerprint,
            "upstream": self.upstream, "shards": shards,
        }  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """All of a run: slices of the input, nodes in the order they can run, and each pipeline's nodes."""

    out: Path
    slices: Sequence[pa.Table]
    input_folder: Path
    input_fingerprint: str
    nodes: Sequence[Node]
    pipelines: Mapping[str, Sequence[Node]]
    fresh: bool = False  # earlier work does not count; the run removes it

    def shards(self, node: Node | None) -> list[str]:
        """Shard names of a stage (None: the input)."""
        return ["00000"] if node is not None and node.whole else [f"{i:05d}" for i in range(len(self.slices))]

    def __str__(self) -> str:
        """The dry run: a line per stage with what is reused or why it runs."""
        lines = [f"{sum(s.num_rows for s in self.slices)} rows in {len(self.slices)} shards, run folder {self.out}"]
        for node in self.nodes:
            users = ", ".join(name for name, nodes in self.pipelines.items() if node in nodes)
            lines.append(f"{self.verdict(node)}  {shown(node.stage)}   [{users}]")
        return "\n".join(lines)

    def verdict(self, node: Node) -> str:
        """`reuse`, or `run` and why."""
        total = len(self.shards(node))
        if self.fresh:
            return f"run   {total} of {total} shards: fresh"
        done = len(ShardSet(node.folder).commits()) if is_shard_set(node.folder) else 0
        if done == total:
            return f"reuse {done} of {total} shards"
        return f"run   {total - done} of {total} shards: {'interrupted' if done else self.why(node)}"

    def why(self, node: Node) -> str:
        """What differs from the nearest earlier run of the same stage."""
        if is_shard_set(node.folder):
            return "interrupted before its first shard"
        earlier = sorted(node.folder.parent.glob(f"*-{node.name}-*/plan.json"), key=lambda p: -p.stat().st_mtime)
        if not earlier:
            return "never ran"
        before, now = json.loads(earlier[0].read_text()), node.described(0)
        changed = difference(before["settings"], now["settings"])
        if changed:
            return "settings changed: " + ", ".join(changed)
        return "its input or a stage before it changed"


def difference(before: Any, now: Any, name: str = "") -> list[str]:
    """["k 4 -> 8"]: the leaves in which two plain values differ."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = sorted({*before, *now})
        return [d for k in keys for d in difference(before.get(k), now.get(k), f"{name}.{k}".lstrip("."))]
    return [] if before == now else [f"{name} {before} -> {now}"]


def make_plan(
    pipelines: Mapping[str, Pipeline], rows: pa.Table, out: Path, shard_prompts: int, fresh: bool = False
) -> Plan:
    """Lint the pipelines and lay them out below `out`. Raises PipelineError, InputError."""
    if not pipelines or not all(pipelines.values()):
        raise PipelineError("pipelines", "an empty list of stages", "at least one stage each", "add a stage")
    for name, stages in pipelines.items():
        check_name(name, out)
        lint(stages, rows.column_names)
        check_ids(rows, stages[0].key)
    slices = cut(rows, shard_prompts)
    start = content_id("input", *input_content(rows), [s.num_rows for s in slices])
    nodes: dict[str, Node] = {}
    laid: dict[str, list[Node]] = {}
    for name, stages in pipelines.items():
        upstream, whole = start, False
        laid[name] = []
        for number, stage in enumerate(stages, 1):
            mark, whole = fingerprint(stage, upstream), whole or stage.whole
            folder = out / "stages" / f"{number:02d}-{type(stage).__name__}-{mark[:12]}"
            node = nodes.setdefault(mark, Node(number, stage, mark, upstream, folder, whole))
            laid[name].append(node)
            upstream = mark
    folder = out / "stages" / f"00-{INPUT}-{start[:12]}"
    return Plan(out, slices, folder, start, sorted(nodes.values(), key=lambda n: n.number), laid, fresh)


def check_name(name: str, out: Path) -> None:
    """A pipeline's set goes to `out`/name: a plain name, and nothing there that is not a set of ours."""
    if not NAME.fullmatch(name) or name == "stages":
        raise PipelineError(
            "pipelines", f"the name {name!r}", "letters, digits, - and _, not `stages`", "name the list otherwise"
        )
    target = out / name
    try:
        there = set(os.listdir(target))  # one look: another run may be exchanging the set at this moment
    except FileNotFoundError:
        return
    except NotADirectoryError:
        there = {name}
    if there and not there & {"plan.json", "commits", "data", SUCCESS}:
        raise InputError(str(target), "something that no run made", "a free name", "move it, or use another --out")


def check_ids(rows: pa.Table, key: str) -> None:
    """Every input row is named once by `key`; journal and accounts go by it."""
    ids = rows[key].to_pylist() if key in rows.column_names else []
    if len(set(ids)) < len(ids):
        raise InputError(
            "input", f"{len(ids) - len(set(ids))} rows whose {key} an earlier row has", "each row once",
            "drop the duplicates (read_prompts and read_candidates do)",
        )  # fmt: skip


def input_content(rows: pa.Table) -> list[Any]:
    """What an input is known by. Prompts: their ids alone, so that a renamed file does not pay for its answers again.

    Answers that came in: their ids and all that was said about them (scores, finish reasons), for stages decide by it.
    """
    if "candidate_id" not in rows.column_names:
        return [rows["prompt_id"].to_pylist()]
    names = [n for n in sorted(rows.column_names) if n not in PROMPTS.names]
    said = json.dumps([[n, rows[n].to_pylist()] for n in names], default=str)
    return [rows["prompt_id"].to_pylist(), hashlib.sha256(said.encode()).hexdigest()]


def cut(rows: pa.Table, prompts: int) -> list[pa.Table]:
    """Slices of `prompts` prompts each; rows of one prompt stay together (they are sorted so if they are not)."""
    ids = rows["prompt_id"].to_pylist()
    starts = _starts(ids)
    if len(starts) != len(set(ids)):
        order = {pid: i for i, pid in enumerate(dict.fromkeys(ids))}
        rows = rows.take(pa.array(sorted(range(len(ids)), key=lambda i: order[ids[i]]), pa.int64()))
        starts = _starts(rows["prompt_id"].to_pylist())
    bounds = [*starts[::prompts], len(ids)]
    return [rows.slice(a, b - a).combine_chunks() for a, b in itertools.pairwise(bounds)]


def _starts(ids: Iterable[str]) -> list[int]:
    previous, starts = object(), []
    for i, pid in enumerate(ids):
        if pid != previous:
            starts.append(i)
            previous = pid
    return starts
