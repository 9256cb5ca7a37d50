"""From rows of any common preference layout to schema.DPO.

Recognised, first match wins:
    prompt | question | instruction (+ input) with chosen and rejected      texts or lists of messages
    messages | conversations with chosen and rejected                       the conversation is the prompt
    chosen and rejected alone                                               what both begin with is the prompt
A text of the form "Human: …\n\nAssistant: …" is read as a conversation. Scores are taken from chosen_score, score_chosen
and the like. Nothing is guessed inside a text: the prompt is split off between messages, never between characters.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import pyarrow as pa

from curation.schema import DPO, MESSAGE, MESSAGES, REFERENCE, Message, content_id, pair_id, prompt_id
from curation.source import BadRow, collect, find_prompt, json_text, read_conversation, text_or_none
from curation.stage import Outcome

SCORE_COLUMNS = ("{}_score", "score_{}", "{}_rating", "{}_avg_rating")
MODEL_COLUMNS = ("{}_model", "{}-model", "model_{}")
SIDES = ("chosen", "rejected")
READ = pa.schema([*DPO, *(pa.field(name, kind) for name, kind in REFERENCE)])
TURN = re.compile(r"(?:\A|\n\n)\s*(Human|Assistant|User|System):[ \n]?")
assert MESSAGES.value_type == MESSAGE


class Sides(NamedTuple):
    prompt: list[Message]
    chosen: list[Message]
    rejected: list[Message]


def read_pairs(spec: str, limit: int | None = None, split: str | None = None) -> Outcome:
    """Rows of schema.DPO and, where they are there, its reference columns. Raises InputError."""
    return collect(spec, limit, split, pair_row, READ, "pair_id")


def pair_row(row: Mapping[str, Any], source: str) -> "dict[str, Any] | BadRow":
    if any(row.get(side) is None for side in SIDES):
        return BadRow("no_known_columns" if not any(s in row for s in SIDES) else "no_answer", "chosen and rejected")
    sides = _sides(row)
    if isinstance(sides, BadRow):
        return sides
    wrong = _check(sides)
    if wrong:
        return wrong
    tools = json_text(row.get("tools"))
    pid = text_or_none(row.get("prompt_id")) or prompt_id(sides.prompt, None, tools)
    scores = [_number(row, side) for side in SIDES]
    models = [next((row[c.format(s)] for c in MODEL_COLUMNS if row.get(c.format(s))), None) for s in SIDES]
    ids = [
        text_or_none(row.get(f"{s}_id")) or imported_id(pid, turns[-1]["content"])
        for s, turns in zip(SIDES, sides[1:], strict=True)
    ]
    for name in ("weight", "offset"):
        if row.get(name) is not None and not _finite(row[name]):
            return BadRow(f"bad_{name}", repr(row[name])[:40])
    return {
        "pair_id": text_or_none(row.get("pair_id")) or pair_id(pid, *ids), "prompt_id": pid, **sides._asdict(),
        "chosen_score": scores[0], "rejected_score": scores[1], "margin": scores[0] - scores[1],
        "kind": text_or_none(row.get("kind")) or "imported", "chosen_id": ids[0], "rejected_id": ids[1],
        "chosen_model": text_or_none(models[0]), "rejected_model": text_or_none(models[1]),
        "source": str(row.get("source") or source), "task": text_or_none(row.get("task")), "tools": tools,
        "weight": row.get("weight"), "offset": row.get("offset"), **{name: row.get(name) for name, _ in REFERENCE},
    }  # fmt: skip


def imported_id(prompt_id: str, answer: str) -> str:
    """Id of an answer that came without one."""
    return content_id("imported", prompt_id, answer)


def _sides(row: Mapping[str, Any]) -> "Sides | BadRow":
    """Prompt and both answers as messages, the shared opening of both answers moved to the prompt."""
    found, _ = find_prompt({k: v for k, v in row.items() if k not in SIDES})
    prompt: list[Message] = []
    if not isinstance(found, BadRow):
        prompt = found
    elif found.reason != "no_known_columns":
        return found
    if len(prompt) == 1 and prompt[0]["role"] == "user":
        prompt = dialogue(prompt[0]["content"]) or prompt
    answers = []
    for side in SIDES:
        turns = _answer(row[side], alone=not prompt)
        if isinstance(turns, BadRow):
            return turns
        # Some sets repeat the prompt in front of each answer.
        answers.append(turns[len(prompt) :] if prompt and turns[: len(prompt)] == prompt else turns)
    shared = 0
    while shared < min(map(len, answers)) - 1 and answers[0][shared] == answers[1][shared]:
        shared += 1
    return Sides([*prompt, *answers[0][:shared]], answers[0][shared:], answers[1][shared:])


def _answer(value: Any, alone: bool) -> "list[Message] | BadRow":
    if isinstance(value, str):
        turns = dialogue(value) if alone else None
        return turns or [{"role": "assistant", "content": value}]
    return read_conversation([value] if isinstance(value, Mapping) else value)


def dialogue(text: str) -> list[Message] | None:
    """ "Human: a\n\nAssistant: b" as messages; None where the text is no such dialogue. A last empty turn is left out.

    The last turn keeps its whitespace: what stands at the end of an answer is part of it.
    """
    parts = TURN.split(text)
    if len(parts) < 3 or parts[0].strip():
        return None
    roles = {"Human": "user", "User": "user", "Assistant": "assistant", "System": "system"}
    turns = [{"role": roles[r], "content": c.strip()} for r, c in zip(parts[1::2], parts[2::2], strict=True)]
    turns[-1]["content"] = parts[-1]
    return turns[:-1] if not parts[-1].strip() else turns


def _check(sides: Sides) -> BadRow | None:
    if not sides.prompt:
        return BadRow("empty_prompt", "nothing stands before the answers")
    for name, turns in (("chosen", sides.chosen), ("rejected", sides.rejected)):
        if [t["role"] for t in turns] != ["assistant"]:
            return BadRow("bad_answer", f"{name} is {', '.join(t['role'] for t in turns)}, not one assistant message")
        if not turns[0]["content"].strip():
            return BadRow("empty_answer", name)
    if sides.chosen == sides.rejected:
        return BadRow("no_difference", "both sides are the same text")
    return None


def _number(row: Mapping[str, Any], side: str) -> float:
    """A side's score, NaN where there is none."""
    value = next((row[c.format(side)] for c in SCORE_COLUMNS if row.get(c.format(side)) is not None), None)
    return float(value) if value is not None and _finite(value) else float("nan")


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")
