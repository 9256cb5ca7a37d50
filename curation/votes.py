"""What people said of pairs: votes on disk, agreement, and the pairs they make.

A vote is one line of votes.jsonl, on disk before the page hears of it. It carries an id made by the page, so that a click
sent twice is one vote. Of two votes of one person on one pair the later counts.
"""

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import pyarrow as pa

from curation.errors import InputError, StorageError
from curation.schema import DPO, pair_id
from curation.stage import Outcome, drops

Pick = Literal["first", "second", "tie", "skip"]
PICKS = get_args(Pick)


class Vote(NamedTuple):
    """`first` and `second` are the pair's chosen and rejected side as it was listed, wherever the page showed them."""

    vote_id: str
    pair_id: str
    annotator: str
    pick: Pick
    at: str = ""  # time, ISO 8601


class Votes:
    """The votes of one folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "votes.jsonl"
        self.listed: dict[str, Vote] = {}
        if self.path.exists():
            self._load()

    def _load(self) -> None:
        whole = self.path.read_bytes()
        lines, torn = whole.split(b"\n"), not whole.endswith(b"\n")
        for number, line in enumerate(lines[:-1], 1):
            try:
                vote = Vote(**json.loads(line))
            except (ValueError, TypeError) as e:
                raise StorageError(
                    f"{self.path}:{number}", "a damaged line", "one vote a line", "mend or remove it"
                ) from e
            self.listed[vote.vote_id] = vote
        if torn:  # a kill in the middle of a line: it was never acknowledged
            os.truncate(self.path, len(whole) - len(lines[-1]))

    def add(self, vote: Vote) -> bool:
        """Keep a vote, on disk before this returns; False if it is there already."""
        if vote.vote_id in self.listed:
            return False
        with self.path.open("ab") as file:
            file.write(json.dumps(vote._asdict(), sort_keys=True).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self.listed[vote.vote_id] = vote
        return True

    def latest(self) -> dict[tuple[str, str], Vote]:
        """{(annotator, pair_id): their last vote on it}."""
        return {(v.annotator, v.pair_id): v for v in self.listed.values()}


def krippendorff_alpha(votes: Iterable[Vote]) -> float:
    """Agreement of several people on the same pairs, nominal (Krippendorff 2011): 1 = full, 0 = chance, NaN = no overlap."""
    import krippendorff

    found = [v for v in votes if v.pick != "skip"]
    people, units = sorted({v.annotator for v in found}), sorted({v.pair_id for v in found})
    values = [[float("nan")] * len(units) for _ in people]
    for v in found:
        values[people.index(v.annotator)][units.index(v.pair_id)] = float(PICKS.index(v.pick))
    shared = [n for n in Counter(v.pair_id for v in found).values() if n > 1]
    if not shared:
        return float("nan")
    if len({v.pick for v in found}) == 1:
        return 1.0
    return float(krippendorff.alpha(values, level_of_measurement="nominal"))


def decided(pairs: pa.Table, votes: Sequence[Vote]) -> Outcome:
    """The pairs people decided, the side most of them picked as chosen; kind "human". Scores are shares of the votes.

    A tie counts half for each side. Pairs without a majority, and those nobody saw, leave with that reason.
    """
    picks: dict[str, Counter[str]] = {}
    for vote in votes:
        picks.setdefault(vote.pair_id, Counter())[vote.pick] += 1
    kept, gone = [], []
    for pair in pairs.to_pylist():
        count = picks.get(pair["pair_id"], Counter())
        judged = count["first"] + count["second"] + count["tie"]
        if not judged:
            gone.append((pair["pair_id"], "skipped" if count["skip"] else "not_judged", ""))
            continue
        share = (count["first"] + count["tie"] / 2) / judged
        if share == 0.5:
            gone.append((pair["pair_id"], "tie", f"{dict(count)}"))
            continue
        kept.append(_decided(pair, share))
    return Outcome(pa.Table.from_pylist(kept, schema=DPO), drops(gone))


def _decided(pair: Mapping[str, Any], first: float) -> dict[str, Any]:
    """The pair turned so that its winner is chosen; `first` is the share of votes for the side listed as chosen."""
    row = {n: pair.get(n) for n in DPO.names}
    if first < 0.5:
        for chosen, rejected in (
            ("chosen", "rejected"),
            ("chosen_id", "rejected_id"),
            ("chosen_model", "rejected_model"),
        ):
            row[chosen], row[rejected] = row[rejected], row[chosen]
    share = max(first, 1 - first)
    row |= {"kind": "human", "chosen_score": share, "rejected_score": 1 - share, "margin": 2 * share - 1}
    row["pair_id"] = pair_id(str(row["prompt_id"]), str(row["chosen_id"]), str(row["rejected_id"]))
    return row


def report(pairs: int, votes: Votes) -> dict[str, Any]:
    """Counts and agreement, for the page and the terminal."""
    latest = list(votes.latest().values())
    alpha = krippendorff_alpha(latest)
    return {
        "pairs": pairs, "judged": len({v.pair_id for v in latest if v.pick != "skip"}),
        "annotators": dict(sorted(Counter(v.annotator for v in latest).items())),
        "picks": dict(sorted(Counter(v.pick for v in latest).items())), "alpha": None if alpha != alpha else round(alpha, 4),
    }  # fmt: skip


def check_name(name: str) -> str:
    """An annotator's name as it may stand in a file. Raises InputError."""
    if not 1 <= len(name) <= 40 or not all(c.isalnum() or c in " ._-" for c in name):
        raise InputError(
            "annotator", repr(name)[:60], "1 to 40 letters, digits, spaces, '.', '_' or '-'", "give a plain name"
        )
    return name
