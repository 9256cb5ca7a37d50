"""The local runner: pipelines over prompts, shard by shard, resumable at any moment.

    run({"sft": [Sample(…), Score(…), BestOfK(), ToMessages()]}, prompts, Path("runs/x"))

    RUN/stages/<NN>-<Stage>-<fingerprint>/   a shard set per stage, with a journal where it asks an engine
    RUN/<pipeline>/                          the finished set of each pipeline, with its data card
    RUN/run.json, RUN/log.txt                what ran, with which settings, and one line per stage

Two threads work on shards; a stage that asks an engine does so for one shard at a time. So while one shard is
generated, the one before it is scored.
"""

import shutil
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from curation.durable import Disk, put
from curation.engine import Engine, Reply, Request
from curation.errors import InputError, one_line
from curation.journal import Journal
from curation.plan import INPUT, Node, Plan, make_plan
from curation.progress import Progress, stage_line
from curation.publish import publish
from curation.schema import canonical_json
from curation.shards import ShardSet
from curation.stage import Outcome, Pipeline, plain, settle, shown


class RunResult(NamedTuple):
    """Where the finished sets are, and what every stage did."""

    published: dict[str, Path]
    stages: list[dict[str, Any]]


def plan(
    pipelines: Mapping[str, Pipeline], prompts: Outcome, out: Path, shard_prompts: int = 256, fresh: bool = False
) -> Plan:
    """What `run` would do, without doing it: str() of it is the dry run. Nothing on disk is touched."""
    return make_plan(pipelines, prompts.rows, Path(out), shard_prompts, fresh)


def run(
    pipelines: Mapping[str, Pipeline], prompts: Outcome, out: Path, *, recipe: str = "", settings: object = None,
    shard_prompts: int = 256, workers: int = 2, fresh: bool = False, quiet: bool = False,
) -> RunResult:  # fmt: skip
    """Run the pipelines and publish their sets. Work that is committed is verified and reused, unless `fresh`.

    What goes wrong inside a stage is raised as it is, with a note that says in which one; committed shards stay.
    Raises PipelineError (before anything runs, or when a stage's account does not add up), EngineError,
    StorageError; KeyboardInterrupt leaves everything resumable.
    """
    if prompts.rows.num_rows == 0:
        raise InputError("prompts", "no row", "at least one", "look at what was set aside")
    laid = plan(pipelines, prompts, out, shard_prompts, fresh)
    if fresh:
        for node in laid.nodes:
            shutil.rmtree(node.folder, ignore_errors=True)
    Path(out).mkdir(parents=True, exist_ok=True)
    progress = Progress(Path(out) / "log.txt", quiet)
    with progress.shown():
        work = LocalRun(laid, progress, workers)
        work.commit_input(prompts)
        work.execute()
        stages = [work.report(node) for node in laid.nodes]
        record = {
            "recipe": recipe,
            "settings": plain(settings) if is_dataclass(settings) else {},
            "input": {
                "folder": _relative(laid.input_folder, out),
                "rows": prompts.rows.num_rows,
                "reasons": prompts.reasons(),
            },
            "pipelines": {name: [n.fingerprint for n in nodes] for name, nodes in laid.pipelines.items()},
            "stages": stages,
            "versions": _versions(),
        }
        put(Disk(), Path(out) / "run.json", (canonical_json(record) + "\n").encode())
        published = {name: work.publish(name, nodes, stages) for name, nodes in laid.pipelines.items()}
    return RunResult(published, stages)


@dataclass
class Work:
    """What a node carries while the run goes on."""

    shards: ShardSet
    journal: Journal | None
    asking: threading.Lock
    counting: threading.Lock = field(default_factory=threading.Lock)
    seconds: float = 0.0
    reused: int = 0
    rows_in: int = 0


class LocalRun:
    """One run in this process: a tree of stages, worked off shard by shard."""

    def __init__(self, plan: Plan, progress: Progress, workers: int) -> None:
        self.plan, self.progress, self.workers = plan, progress, workers
        self.stop = threading.Event()
        self.total = sum(s.num_rows for s in plan.slices)
        self.doing: dict[str, Node] = {}  # shard → the stage it is in, for the note of a crash
        self.input = ShardSet.create(
            plan.input_folder, {"stage": INPUT, "fingerprint": plan.input_fingerprint, "shards": len(plan.slices)}
        )
        self.work = {n.fingerprint: self._open(n) for n in plan.nodes}
        self.children: dict[str, list[Node]] = {}
        for node in plan.nodes:
            self.children.setdefault(node.upstream, []).append(node)

    def _open(self, node: Node) -> Work:
        names = self.plan.shards(node)
        shards = ShardSet.create(node.folder, node.described(len(names)))
        missing = len(shards.commits()) < len(names)  # else no reply is needed, and none is read back
        return Work(shards, Journal(node.folder / "journal") if node.stage.asks and missing else None, threading.Lock())

    def commit_input(self, prompts: Outcome) -> None:
        done = self.input.commits()
        for shard, rows in zip(self.plan.shards(None), self.plan.slices, strict=True):
            if shard not in done:
                self.input.write(shard, rows, prompts.dropped if shard == "00000" else None)
        if not self.input.finished():
            self.input.finish(INPUT)

    def execute(self) -> None:
        """All shards through the stages that need one prompt's rows, then the stages that need all rows."""
        for node in self.plan.nodes:
            self.progress.expect(_label(node), self.total)
        pool = ThreadPoolExecutor(self.workers)
        try:
            self._await(
                {
                    shard: pool.submit(self.descend, self.plan.input_fingerprint, shard, rows)
                    for shard, rows in zip(self.plan.shards(None), self.plan.slices, strict=True)
                }
            )
            for node in self.plan.nodes:  # in the order they can run: what feeds one is done before it
                if node.whole:
                    self._await({"00000": pool.submit(self.one_shard, node, "00000", self._all_rows(node))})
        finally:
            self.stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
        for node in self.plan.nodes:
            self.finish(node)

    def _await(self, jobs: "Mapping[str, Future[Any]]") -> None:
        """Wait for jobs, by shard. The first error is raised with a note that says where it happened."""
        wait(jobs.values(), return_when=FIRST_EXCEPTION)
        for shard, job in jobs.items():
            error = job.exception() if job.done() else None
            if error is not None:
                node = self.doing[shard]
                kept = len(self.work[node.fingerprint].shards.commits())
                self.progress.line(
                    f"failed {shown(node.stage)}   shard {shard}: {one_line(f'{type(error).__name__}: {error}')}"
                )
                error.add_note(
                    f"in stage {node.number} {shown(node.stage)}, shard {shard}; what is committed is kept ({kept} of "
                    f"{len(self.plan.shards(node))} shards of this stage): start again to go on"
                )
                raise error

    def descend(self, upstream: str, shard: str, rows: pa.Table) -> None:
        """One shard through every stage below `upstream` that does not need all rows."""
        for node in self.children.get(upstream, []):
            if not node.stage.whole and not self.stop.is_set():
                self.descend(node.fingerprint, shard, self.one_shard(node, shard, rows))

    def one_shard(self, node: Node, shard: str, rows: pa.Table) -> pa.Table:
        """A stage's rows of one shard: read back if committed, else made, accounted for and committed."""
        self.doing[shard] = node
        work, share = self.work[node.fingerprint], self._input_rows(node, shard)
        with work.counting:
            work.rows_in += rows.num_rows
        if (work.shards.path / "commits" / f"{shard}.json").exists():
            with work.counting:
                work.reused += 1
            self.progress.advance(_label(node), share)
            return work.shards.read(work.shards.commit(shard))
        started = time.monotonic()
        if work.journal is None:
            outcome = settle(node.stage, rows, node.stage(rows))
            self.progress.advance(_label(node), share)
        else:
            with work.asking:
                stage: Any = node.stage  # one that asks takes `answer` too
                answered = stage(rows, self._answer(node, work.journal, share))
            outcome = settle(node.stage, rows, answered)
            work.journal.sync()
        if node.stage.key in outcome.rows.column_names:
            outcome = Outcome(_sorted(outcome.rows), outcome.dropped, outcome.counters)
        work.shards.write(shard, outcome.rows, outcome.dropped, outcome.counters)
        with work.counting:
            work.seconds += time.monotonic() - started
        return outcome.rows

    def _input_rows(self, node: Node, shard: str) -> int:
        """How far a shard brings a stage, in rows of the input: the measure all stages of a run share."""
        return self.total if node.whole else self.plan.slices[int(shard)].num_rows

    def _answer(self, node: Node, journal: Journal, rows: int) -> Any:
        def answer(engine: Engine, requests: Sequence[Request]) -> Iterator[tuple[Request, list[Reply]]]:
            share = rows / max(1, sum(len(r.samples) for r in requests))
            for request, replies in journal.answer(engine, requests):
                if self.stop.is_set():
                    raise KeyboardInterrupt
                self.progress.advance(_label(node), share * len(replies), sum(r.tokens for r in replies))
                yield request, replies

        return answer

    def _all_rows(self, node: Node) -> pa.Table:
        above = next((w.shards for f, w in self.work.items() if f == node.upstream), self.input)
        return pa.concat_tables([above.read(c) for c in above.commits().values()])

    def finish(self, node: Node) -> None:
        """Close a stage: every shard verified, counts logged."""
        work = self.work[node.fingerprint]
        if work.journal:
            work.journal.close()
        missing = set(self.plan.shards(node)) - set(work.shards.commits())
        assert not missing, f"{_label(node)} ends without shards {sorted(missing)}"
        if not work.shards.finished():
            work.shards.finish(node.name)
        report = self.report(node)
        total = len(self.plan.shards(node))
        word = "reused" if work.reused == total else "ran"
        self.progress.line(
            stage_line(
                word,
                node.stage,
                report["rows_in"],
                report["rows_out"],
                report["reasons"],
                report["counters"],
                work.seconds,
            )
        )

    def report(self, node: Node) -> dict[str, Any]:
        """Counts of a stage, from its commit records."""
        work = self.work[node.fingerprint]
        commits = list(work.shards.commits().values())
        reasons: dict[str, int] = {}
        counters: dict[str, float] = {}
        for commit in commits:
            for reason, count in ((commit.drops or {}).get("reasons") or {}).items():
                reasons[reason] = reasons.get(reason, 0) + count
            for name, value in commit.counters.items():
                counters[name] = counters.get(name, 0) + value
        return {
            "number": node.number, "stage": node.name, "settings": plain(node.stage), "repr": shown(node.stage),
            "fingerprint": node.fingerprint, "upstream": node.upstream, "folder": _relative(node.folder, self.plan.out),
            "rows_in": work.rows_in, "rows_out": sum(c.rows for c in commits), "reasons": dict(sorted(reasons.items())),
            "counters": dict(sorted(counters.items())),
        }  # fmt: skip

    def publish(self, name: str, nodes: Sequence[Node], stages: list[dict[str, Any]]) -> Path:
        """The pipeline's last stage as a finished set of its own with a data card; an older one is replaced whole."""
        last, used = self.work[nodes[-1].fingerprint].shards, {n.fingerprint for n in nodes}
        made_by = [s for s in stages if s["fingerprint"] in used]
        return publish(self.plan.out, name, nodes[-1].fingerprint, last, made_by, self.input)


def _sorted(rows: pa.Table) -> pa.Table:
    """Rows by prompt and then by their own id, whatever order engines answered in; prompts keep their order."""
    if "candidate_id" not in rows.column_names or rows.num_rows < 2:
        return rows
    order = {pid: i for i, pid in enumerate(dict.fromkeys(rows["prompt_id"].to_pylist()))}
    keys = list(zip(rows["prompt_id"].to_pylist(), rows["candidate_id"].to_pylist(), strict=True))
    at = sorted(range(len(keys)), key=lambda i: (order[keys[i][0]], keys[i][1]))
    return rows.take(pa.array(at, pa.int64()))


def _label(node: Node) -> str:
    return f"{node.number:02d} {node.name} {node.fingerprint[:4]}"


def _relative(path: Path, root: Path) -> str:
    return str(Path(path).relative_to(root))


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("thresher", "pyarrow")}
