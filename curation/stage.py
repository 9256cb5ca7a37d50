"""A stage: a frozen dataclass that is called on an Arrow table. A pipeline: a list of them.

Its fields are its settings, its text (`shown`) is its log line, its fields plus what stands upstream are its cache key.
Class attributes say what the runner must know:

    reads     columns it needs                        whole     False: the rows of one prompt are enough to decide
    writes    columns it adds                         replaces  True: its output has `writes` alone
    key       column that names its input rows        carries   output columns in which a kept input id stands again
    asks      True: it is called with `answer` as second argument and sends its requests to engines through that

A call returns a table, or an `Outcome` when rows leave: each row that leaves has a reason. The runner holds every
stage to its account (`settle`): ids in = ids carried + ids dropped.
"""

import dataclasses
import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from curation.errors import PipelineError
from curation.schema import DROPS, content_id


class Stage(ABC):
    """What a stage derives from. A stage of your own states only what differs."""

    reads: ClassVar[tuple[str, ...]] = ()
    writes: ClassVar[tuple[str, ...]] = ()
    whole: ClassVar[bool] = False
    replaces: ClassVar[bool] = False
    key: ClassVar[str] = "candidate_id"
    carries: ClassVar[tuple[str, ...]] = ("candidate_id",)

    @property
    def asks(self) -> bool:
        return False

    @abstractmethod
    def __call__(self, rows: pa.Table) -> "pa.Table | Outcome":
        """The rows that go on, or an Outcome when some leave."""


@dataclass(frozen=True)
class Outcome:
    """What a stage made of its rows: those that go on, those that left and why, and counts worth showing."""

    rows: pa.Table
    dropped: pa.Table = field(default_factory=lambda: DROPS.empty_table())
    counters: Mapping[str, float] = field(default_factory=dict)

    def reasons(self) -> dict[str, int]:
        """Drop reasons with their counts, commonest first (ties by name)."""
        counts = pc.value_counts(self.dropped["reason"]).to_pylist()
        return {c["values"]: c["counts"] for c in sorted(counts, key=lambda c: (-c["counts"], c["values"]))}


def drops(rows: Iterable[tuple[str, str, str]]) -> pa.Table:
    """A drop table from (row id, reason, detail) triples."""
    listed = list(rows)
    columns = [pa.array([row[i] for row in listed], pa.string()) for i in range(3)]
    return pa.table(columns, schema=DROPS)


def split(rows: pa.Table, reasons: Sequence[str | None], key: str, details: Sequence[str] | None = None) -> Outcome:
    """Keep the rows whose reason is None, drop the others with theirs. `reasons` has one entry per row."""
    assert len(reasons) == rows.num_rows, f"{len(reasons)} reasons for {rows.num_rows} rows"
    why = pa.array(reasons, pa.string())
    gone = why.is_valid()
    text = pa.array(details if details is not None else [""] * rows.num_rows, pa.string())
    dropped = pa.table([rows[key].filter(gone), why.filter(gone), text.filter(gone)], schema=DROPS)
    return Outcome(rows.filter(why.is_null()), dropped)


def settle(stage: Stage, before: pa.Table, result: "pa.Table | Outcome") -> Outcome:
    """The stage's outcome, its account checked: every id that came in was carried or dropped, none both, none made up.

    Raises PipelineError naming the stage and an id.
    """
    outcome = result if isinstance(result, Outcome) else Outcome(result)
    ids = set(before[stage.key].to_pylist())
    kept: set[str] = set()
    for column in stage.carries:
        kept.update(outcome.rows[column].drop_null().to_pylist())
    gone = set(outcome.dropped["row_id"].to_pylist())
    name = type(stage).__name__
    for what, wrong in (
        ("lost without a reason", ids - kept - gone),
        ("both kept and dropped", kept & gone),
        ("dropped but never came in", gone - ids),
        ("kept but never came in", kept - ids),
    ):
        if wrong:
            raise PipelineError(
                f"stage {name}",
                f"{len(wrong)} of {len(ids)} rows {what}, e.g. {min(wrong)}",
                "rows in = rows out + rows dropped, each drop with a reason",
                "return Outcome(rows, dropped) from the stage",
            )
    return outcome


def lint(stages: Sequence[Stage], columns: Sequence[str]) -> list[str]:
    """The columns after the last stage; raises PipelineError before anything runs when one reads what nobody wrote."""
    have = list(columns)
    for number, stage in enumerate(stages, 1):
        if not isinstance(stage, Stage) or not dataclasses.is_dataclass(stage):
            raise PipelineError(
                f"stage {number}", repr(stage)[:80], "an instance of a frozen dataclass with the stage attributes",
                "derive it from curation.stage.Stage and call the class, e.g. BestOfK()",
            )  # fmt: skip
        missing = [c for c in stage.reads if c not in have]
        if missing:
            raise PipelineError(
                f"stage {number} {type(stage).__name__}", f"no column {', '.join(missing)} (there are: {', '.join(have)})",
                f"columns {', '.join(stage.reads)}", "put the stage that writes it before this one",
            )  # fmt: skip
        have = list(stage.writes) if stage.replaces else have + [c for c in stage.writes if c not in have]
    return have


def plain(value: Any, where: str = "setting") -> Any:
    """A value as JSON data for the cache key: dataclasses, plain values, engines by identity, module-level functions.

    Raises PipelineError for anything whose text would differ between processes (lambdas, open objects).
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        out = {f.name: plain(getattr(value, f.name), f"{where}.{f.name}") for f in dataclasses.fields(value)}
        identity = getattr(value, "identity", None)
        return {"": type(value).__qualname__, **out, **({"identity": identity()} if callable(identity) else {})}
    if isinstance(value, Mapping):
        return {str(k): plain(v, f"{where}.{k}") for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v, where) for v in value]
    if inspect.isfunction(value) and "<" not in value.__qualname__:
        return f"{value.__module__}:{value.__qualname__}"
    raise PipelineError(
        where, f"a {type(value).__name__}", "a plain value, a dataclass or a function defined in a module",
        "give the stage a named function instead of a lambda or a live object",
    )  # fmt: skip


def shown(value: Any) -> str:
    """A value as a reader would write it, defaults left out: BestOfK(min_score=1.0). The same in every process."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = [
            f"{f.name}={shown(getattr(value, f.name))}"
            for f in dataclasses.fields(value)
            if getattr(value, f.name) != f.default or f.default is dataclasses.MISSING
        ]
        return f"{type(value).__name__}({', '.join(parts)})"
    if isinstance(value, tuple):
        return f"({', '.join(map(shown, value))}{',' if len(value) == 1 else ''})"
    return value.__qualname__ if inspect.isfunction(value) else repr(value)


def fingerprint(stage: Stage, upstream: str) -> str:
    """Cache key of a stage: its class, its settings and the key of what stands before it."""
    return content_id(upstream, plain(stage, type(stage).__name__))


def by_prompt(rows: pa.Table) -> Iterator[tuple[str, list[int]]]:
    """(prompt_id, row numbers) in order of first appearance. Groups are found by id, never by position."""
    groups: dict[str, list[int]] = {}
    for i, pid in enumerate(rows["prompt_id"].to_pylist()):
        groups.setdefault(pid, []).append(i)
    yield from groups.items()


Pipeline = Sequence[Stage]
