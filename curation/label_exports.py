"""Judgements made elsewhere: exports of Argilla and Label Studio as pairs and votes, as if our page had taken them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from curation.errors import InputError
from curation.schema import DPO, content_id, pair_id, prompt_id
from curation.votes import Pick, Vote

PROMPT_FIELDS = ("prompt", "instruction", "question", "input", "context")
SIDES = (
    ("response1", "response2"), ("response-1", "response-2"), ("response_1", "response_2"), ("response_a", "response_b"),
    ("answer1", "answer2"), ("answer_1", "answer_2"), ("answer_a", "answer_b"), ("text1", "text2"), ("left", "right"),
    ("generation1", "generation2"), ("completion_a", "completion_b"), ("chosen", "rejected"),
)  # fmt: skip
TIES = ("tie", "equal", "both", "neither", "same")


def read_export(path: str) -> tuple[pa.Table, list[Vote]]:
    """(rows of schema.DPO, votes) of an Argilla or Label Studio export (JSON list or JSONL). Raises InputError."""
    pairs: dict[str, dict[str, Any]] = {}
    votes: dict[str, Vote] = {}
    for number, record in enumerate(_records(path), 1):
        fields = record.get("fields", record.get("data"))
        if not isinstance(fields, Mapping):
            raise InputError(
                f"{path} record {number}", ", ".join(map(str, record))[:80], "Argilla's `fields` or Label Studio's `data`",
                "export the records whole, as JSON",
            )  # fmt: skip
        names, pair = _pair(fields, f"{path} record {number}")
        pairs[pair["pair_id"]] = pair
        said = _label_studio(record) if "annotations" in record else _argilla(record)
        for person, value in said:
            pick = _pick(value, names)
            if pick:
                vote_id = content_id("imported", person, pair["pair_id"])
                votes[vote_id] = Vote(vote_id, pair["pair_id"], person, pick)
    return pa.Table.from_pylist(list(pairs.values()), schema=DPO), list(votes.values())


def _records(path: str) -> list[Mapping[str, Any]]:
    try:
        text = Path(path).read_text(encoding="utf-8")
        found = (
            json.loads(text)
            if text.lstrip().startswith("[")
            else [json.loads(x) for x in text.splitlines() if x.strip()]
        )
    except (OSError, ValueError, RecursionError) as e:
        raise InputError(path, f"no readable JSON ({e})"[:160], "a JSON list or JSONL export", "export again") from e
    if not all(isinstance(r, Mapping) for r in found) or not found:
        raise InputError(path, "no list of records", "a JSON list or JSONL export", "export the records as JSON")
    return list(found)


def _pair(fields: Mapping[str, Any], where: str) -> tuple[tuple[str, str], dict[str, Any]]:
    prompt = next((fields[n] for n in PROMPT_FIELDS if isinstance(fields.get(n), str)), None)
    names = next((s for s in SIDES if all(isinstance(fields.get(n), str) for n in s)), None)
    if prompt is None or names is None:
        raise InputError(
            where, f"fields {', '.join(map(str, fields))}"[:120], "a prompt and two answers (response1 and response2, …)",
            "rename the fields",
        )  # fmt: skip
    messages = [{"role": "user", "content": prompt}]
    pid = prompt_id(messages)
    ids = [content_id("imported", pid, fields[n]) for n in names]
    return names, {
        "pair_id": pair_id(pid, *ids), "prompt_id": pid, "prompt": messages, "kind": "unjudged", "source": "export",
        **{side: [{"role": "assistant", "content": fields[n]}] for side, n in zip(("chosen", "rejected"), names, strict=True)},
        "chosen_id": ids[0], "rejected_id": ids[1],
    }  # fmt: skip


def _label_studio(record: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """(person, choice) of every finished annotation: a pairwise pick or a choice."""
    for annotation in record["annotations"]:
        if annotation.get("was_cancelled"):
            continue
        for result in annotation.get("result", ()):
            value = result.get("value", {})
            choice = value.get("selected", (value.get("choices") or [None])[0])
            if result.get("type") in ("pairwise", "choices") and choice is not None:
                person = annotation.get("completed_by")
                yield str(person.get("id") if isinstance(person, Mapping) else person), choice


def _argilla(record: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """(person, choice): Argilla 2 lists responses by question, Argilla 1 by person."""
    responses = record.get("responses") or {}
    if isinstance(responses, Mapping):
        for answers in responses.values():
            for answer in answers:
                if answer.get("status", "submitted") == "submitted":
                    yield str(answer.get("user_id")), answer.get("value")
        return
    for response in responses:
        if response.get("status", "submitted") == "submitted":
            for answer in (response.get("values") or {}).values():
                yield str(response.get("user_id")), answer.get("value")


def _pick(value: Any, names: Sequence[str]) -> Pick | None:
    """A choice as ours: the field's name or place, or a ranking. None for answers to other questions."""
    if isinstance(value, list):
        ranks = {r.get("value"): int(r.get("rank", 0)) for r in value if isinstance(r, Mapping)}
        if set(names) <= set(ranks):
            first, second = (ranks[n] for n in names)
            return "tie" if first == second else "first" if first < second else "second"
        return None
    word = str(value).strip().lower()
    if word in TIES:
        return "tie"
    if word in ("left", "1", "a", names[0].lower()):
        return "first"
    return "second" if word in ("right", "2", "b", names[1].lower()) else None
