"""Real pairs, their labels drawn anew or left, and plants put among them, with the truth about every row."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
from audit_plant_kinds import OTHER_MODEL, Change, Pair, Plant
from audit_reading import pairs_of

SIDES = ("chosen", "rejected")


@dataclass
class Base:
    """N pairs as columns of plain values; planting changes a copy."""

    rows: pa.Table  # schema.DPO, as read: what no plant touches is taken from here
    prompts: list[str]  # last turns
    texts: dict[str, list[str]]  # side: last turns
    models: dict[str, list[str]]
    prompt_ids: list[str]
    slots: list[str] | None = None  # which side was shown first
    taken: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))  # row of `rows` that each pair came from

    @property
    def pairs(self) -> int:
        return len(self.prompts)

    def copy(self) -> "Base":
        texts, models = ({s: list(v) for s, v in d.items()} for d in (self.texts, self.models))
        return replace(self, prompts=list(self.prompts), texts=texts, models=models)


def read(path: str, most: int | None, seed: int) -> Base:
    """At most `most` pairs, whole prompts drawn by lot."""
    rows = pairs_of(path)
    ids = rows["prompt_id"].to_pylist()
    names = sorted(set(ids))
    place = dict(zip(names, np.random.default_rng(seed).permutation(len(names)).tolist(), strict=True))
    order = sorted(range(len(ids)), key=lambda i: (place[ids[i]], i))[: most or len(ids)]
    rows = rows.take(pa.array(sorted(order)))
    last = {c: [t[-1]["content"] for t in rows[c].to_pylist()] for c in ("prompt", *SIDES)}
    models = {s: [m or OTHER_MODEL for m in rows[f"{s}_model"].to_pylist()] for s in SIDES}
    texts = {s: last[s] for s in SIDES}
    return Base(rows, last["prompt"], texts, models, rows["prompt_id"].to_pylist(), None, np.arange(rows.num_rows))


def flipped(base: Base, rng: np.random.Generator) -> Base:
    """The sides of all pairs of a prompt swapped by lot: the label no longer depends on the text."""
    made = base.copy()
    lots = {name: rng.random() < 0.5 for name in sorted(set(base.prompt_ids))}
    for i, name in enumerate(base.prompt_ids):
        if lots[name]:
            for column in (made.texts, made.models):
                column["chosen"][i], column["rejected"][i] = column["rejected"][i], column["chosen"][i]
    return made


@dataclass(frozen=True)
class Truth:
    """What an exact audit would say of a plant."""

    plant: Plant
    direction: int  # +1: it stands for chosen
    signs: np.ndarray  # int8 (N,): +1 the chosen side alone has it, −1 the rejected one, 0 neither or both
    placed: np.ndarray  # bool (N,)
    squares: int  # Σ over prompts of (sum of signs)²: N of them where no prompt repeats

    @property
    def rows(self) -> set[int]:
        return set(np.flatnonzero(self.signs).tolist())

    @property
    def coverage(self) -> float:
        return float((self.signs != 0).mean())

    @property
    def purity(self) -> float:
        """Share of its rows on the chosen side."""
        return float((self.signs > 0).sum() / max(1, (self.signs != 0).sum()))


def planted(
    base: Base, plants: Sequence[Plant], coverage: float, purity: float, rng: np.random.Generator
) -> tuple[Base, list[Truth]]:
    """Every plant in rows of its own choice; later ones may share rows with earlier ones, so the truth is counted last."""
    made, placings = base.copy(), []
    for plant in plants:
        made, placing = _place(made, plant, coverage, purity, rng)
        placings.append(placing)
    return made, [_truth(made, *p) for p in placings]


def _place(
    made: Base, plant: Plant, coverage: float, purity: float, rng: np.random.Generator
) -> tuple[Base, tuple[Plant, int, np.ndarray]]:
    direction = 1 if plant.decoy or rng.random() < 0.5 else -1
    if plant.slots:
        made.slots = [SIDES[int(rng.integers(2))] for _ in range(made.pairs)]
    wanted = min(plant.rows or round(coverage * made.pairs), made.pairs // 2) // plant.repeat
    parts = _choose(made, plant, wanted, rng)
    signs = np.zeros(made.pairs, np.int8)
    for part, (rows, change) in enumerate(zip(parts, (plant.change, *plant.against), strict=True)):
        turn = direction if part == 0 else -direction
        for i, with_it in zip(rows, _lots(made, plant, rows, purity, rng), strict=True):
            sign = turn if with_it else -turn
            _change(made, i, sign, change, rng)
            if part == 0:
                signs[i] = sign
    if plant.repeat > 1:
        made, signs = _repeated(made, np.flatnonzero(signs), plant.repeat, signs)
    return made, (plant, direction, signs)


def _choose(made: Base, plant: Plant, wanted: int, rng: np.random.Generator) -> list[list[int]]:
    """Rows for the plant itself and for each change against it, apart from one another."""
    order = rng.permutation(made.pairs).tolist()
    if plant.by_prompt:
        place: dict[str, int] = {}
        for i in order:
            place.setdefault(made.prompt_ids[i], len(place))
        order.sort(key=lambda i: place[made.prompt_ids[i]])
    parts = 1 + len(plant.against)
    fit: list[int] = []
    for i in order:
        if len(fit) == wanted * parts:
            break
        if plant.eligible(Pair(made.prompts[i], made.texts["chosen"][i], made.texts["rejected"][i])):
            fit.append(i)
    return [fit[p::parts] for p in range(parts)]


def _lots(made: Base, plant: Plant, rows: list[int], purity: float, rng: np.random.Generator) -> list[bool]:
    """Whether each row goes with the plant's direction: by lot, or exactly half of them where it is a decoy."""
    if plant.by_prompt:
        names = list(dict.fromkeys(made.prompt_ids[i] for i in rows))
        return [names.index(made.prompt_ids[i]) % 2 == 0 for i in rows]
    if plant.purity is not None:
        return [k < plant.purity * len(rows) for k in rng.permutation(len(rows))]
    return [rng.random() < (0.5 if plant.repeat > 1 else purity) for _ in rows]


def _change(made: Base, i: int, sign: int, change: Change, rng: np.random.Generator) -> None:
    carrying, other = SIDES if sign > 0 else SIDES[::-1]
    texts, models = ([column[carrying][i], column[other][i]] for column in (made.texts, made.models))
    pair = change(Pair(made.prompts[i], *texts, *models), rng)
    made.prompts[i], made.texts[carrying][i], made.texts[other][i] = pair.prompt, pair.text, pair.other
    made.models[carrying][i], made.models[other][i] = pair.model, pair.other_model
    if pair.first is not None and made.slots is not None:
        made.slots[i] = carrying if pair.first else other


def _repeated(made: Base, rows: np.ndarray, times: int, signs: np.ndarray) -> tuple[Base, np.ndarray]:
    """Each of `rows` `times` times, the copies at the end."""
    take = np.concatenate([np.arange(made.pairs), *[rows] * (times - 1)])
    texts, models = ({s: [v[i] for i in take] for s, v in d.items()} for d in (made.texts, made.models))
    again = replace(
        made, prompts=[made.prompts[i] for i in take], texts=texts, models=models,
        prompt_ids=[made.prompt_ids[i] for i in take], slots=made.slots and [made.slots[i] for i in take],
        taken=made.taken[take],
    )  # fmt: skip
    return again, signs[take]


def _truth(made: Base, plant: Plant, direction: int, placed: np.ndarray) -> Truth:
    signs = np.zeros(made.pairs, np.int8)
    signs[: len(placed)] = placed  # a later plant may have added copies of rows
    where = signs != 0
    value = plant.has or plant.measure
    if value is not None:
        sides = [np.array([float(value(t)) for t in made.texts[s]]) for s in SIDES]
        signs = np.sign(sides[0] - sides[1]).astype(np.int8)
    _, groups = np.unique(np.array(made.prompt_ids), return_inverse=True)
    by_prompt = np.bincount(groups, signs)
    return Truth(plant, direction, signs, where, int((by_prompt**2).sum()))


def table(made: Base) -> pa.Table:
    """Rows of schema.DPO; `pair_id` is the number of the row. A slot, where there is one, is `chosen_position`."""
    rows = made.rows.take(pa.array(made.taken))
    prompts = [
        [*turns[:-1], {**turns[-1], "content": text}]
        for turns, text in zip(rows["prompt"].to_pylist(), made.prompts, strict=True)
    ]
    columns = {"prompt": prompts, "pair_id": [f"{i:07d}" for i in range(made.pairs)]}
    for side in SIDES:
        columns[side] = [[{"role": "assistant", "content": t}] for t in made.texts[side]]
        columns[f"{side}_model"] = made.models[side]
    for name, values in columns.items():
        at = rows.column_names.index(name)
        rows = rows.set_column(at, name, pa.array(values, rows.schema.field(name).type))
    if made.slots is not None:
        rows = rows.append_column("chosen_position", pa.array([int(s != "chosen") for s in made.slots]))
    return rows
