"""From rows of any common layout to prompts, candidates or conversations.

Recognised, first match wins:
    messages | conversations            a conversation; a last assistant turn is the answer
    prompt (text or messages)           with completion, chosen … beside it
    question | problem | query          with answer, solution, ground_truth
    instruction (+ input | context)     with output | response
Columns that are not recognised go into `extra` as JSON. A GSM8K answer "…#### 42" gives the truth "42".
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from curation.errors import InputError
from curation.files import Found, read_rows
from curation.schema import (
    CANDIDATES,
    FINISH_REASONS,
    PROMPTS,
    ROLES,
    SFT,
    Message,
    candidate_id,
    canonical_json,
    prompt_id,
)
from curation.stage import Outcome, drops

PROMPT_COLUMNS = ("prompt", "question", "problem", "query", "instruction")
ANSWER_COLUMNS = ("completion", "response", "output", "solution", "answer")
TRUTH_COLUMNS = ("ground_truth", "answer", "solution", "target", "label")
CONTEXT_COLUMNS = ("input", "context")
CONVERSATIONS = ("messages", "conversations", "conversation")
ROLE_NAMES = {"human": "user", "gpt": "assistant", "bot": "assistant", "chatbot": "assistant", "observation": "tool"}
IDS = ("prompt_id", "candidate_id")


class BadRow(NamedTuple):
    reason: str
    detail: str = ""


def read_prompts(
    spec: str, limit: int | None = None, split: str | None = None, rename: Mapping[str, str] | None = None
) -> Outcome:
    """Rows of schema.PROMPTS. `dropped` holds what could not be used, by place. Raises InputError.

    `rename` gives columns of the file other names first: {"prompt_label": "ground_truth"}.
    """
    return collect(spec, limit, split, with_names(_prompt_row, rename), PROMPTS, "prompt_id")


def read_candidates(
    spec: str, limit: int | None = None, split: str | None = None, rename: Mapping[str, str] | None = None
) -> Outcome:
    """Rows of schema.CANDIDATES from answers that exist already, several per prompt. Raises InputError."""
    asked: dict[str, int] = {}
    make = with_names(lambda r, s: _candidate_row(r, s, asked), rename)
    return collect(spec, limit, split, make, CANDIDATES, "candidate_id")


def read_messages(spec: str, limit: int | None = None, split: str | None = None) -> Outcome:
    """Rows of schema.SFT: whole conversations to train on. Raises InputError."""
    return collect(spec, limit, split, _sft_row, SFT, "")


Make = Callable[[Mapping[str, Any], str], "dict[str, Any] | BadRow"]


def with_names(make: Make, rename: Mapping[str, str] | None) -> Make:
    """`make` on rows whose columns were given their new names."""
    if not rename:
        return make
    return lambda row, source: make({rename.get(k, k): v for k, v in row.items() if k not in rename.values()}, source)


def collect(spec: str, limit: int | None, split: str | None, make: Make, schema: pa.Schema, key: str) -> Outcome:
    """All rows made by `make`; bad and repeated ones set aside. in = rows + dropped."""
    source = spec.rstrip("/").rsplit("/", 1)[-1]
    made, gone, seen = [], [], set[str]()
    columns: Sequence[str] = ()
    for found in _first(read_rows(spec, split), limit):
        row = make(found.row, source) if found.row is not None else BadRow(found.reason, found.detail)
        columns = columns or list(found.row or ())
        if isinstance(row, BadRow):
            gone.append((found.place, *row))
        elif key and row[key] in seen:
            gone.append((found.place, f"duplicate_{key.removesuffix('_id')}", row[key]))
        else:
            if key:
                seen.add(row[key])
            made.append(row)
    if not made and gone and all(reason == "no_known_columns" for _, reason, _ in gone):
        raise InputError(
            spec, f"columns {', '.join(columns) or 'none'}",
            f"one of {', '.join((*CONVERSATIONS, *PROMPT_COLUMNS))}", "rename a column",
        )  # fmt: skip
    return Outcome(pa.Table.from_pylist(made, schema=schema), drops(gone))


def _first(rows: Iterator[Found], limit: int | None) -> Iterator[Found]:
    for i, row in enumerate(rows):
        if limit is not None and i >= limit:
            return
        yield row


def _prompt_row(row: Mapping[str, Any], source: str) -> "dict[str, Any] | BadRow":
    prompt, used = find_prompt(row)
    if isinstance(prompt, BadRow):
        return prompt
    truth, more = find_truth(row, used)
    tools = json_text(row.get("tools"))
    if isinstance(truth, BadRow):
        return truth
    return {
        "prompt_id": prompt_id(prompt, truth, tools),
        "prompt": prompt,
        "source": str(row.get("source") or source),
        "task": text_or_none(row.get("task")),
        "ground_truth": truth,
        "tools": tools,
        "extra": _extra(row, {*used, *more}),
    }


def _candidate_row(row: Mapping[str, Any], source: str, asked: dict[str, int]) -> "dict[str, Any] | BadRow":
    answer = next((c for c in ANSWER_COLUMNS[:3] if isinstance(row.get(c), str)), None)
    if answer is None:
        return BadRow("no_answer", f"none of {', '.join(ANSWER_COLUMNS[:3])} holds a text")
    made = _prompt_row({k: v for k, v in row.items() if k != answer}, source)
    if isinstance(made, BadRow):
        return made
    number = asked.get(made["prompt_id"], 0)
    asked[made["prompt_id"]] = number + 1
    model, origin = str(row.get("model") or source), str(row.get("origin") or "policy")
    sampling = text_or_none(row.get("sampling")) or canonical_json({"imported": True, "sample": number})
    reason = row.get("finish_reason") or "stop"
    if reason not in FINISH_REASONS:
        return BadRow("unknown_finish_reason", str(reason)[:80])
    text, reasoning = row[answer], text_or_none(row.get("reasoning"))
    own = {"model", "origin", "sampling", "finish_reason", "reasoning", answer}
    return {
        **made,
        "extra": _extra(json.loads(made["extra"] or "{}"), own),
        "candidate_id": candidate_id(made["prompt_id"], model, origin, sampling, text, reasoning),
        "completion": text,
        "reasoning": reasoning,
        "finish_reason": reason,
        "origin": origin,
        "model": model,
        "sampling": sampling,
        "logprob": row.get("logprob"),
        "completion_tokens": row.get("completion_tokens"),
    }


def _sft_row(row: Mapping[str, Any], source: str) -> "dict[str, Any] | BadRow":
    conversation = next((c for c in CONVERSATIONS if row.get(c) is not None), None)
    if conversation:
        messages = read_conversation(row[conversation])
    else:
        messages, used = find_prompt(row)
        # A solution with its working is the better lesson than the bare answer beside it.
        answer = next((c for c in ANSWER_COLUMNS if c not in used and isinstance(row.get(c), str | list)), None)
        if not isinstance(messages, BadRow):
            messages = _with_answer(messages, row[answer] if answer else None)
    if isinstance(messages, BadRow):
        return messages
    if messages[-1]["role"] != "assistant":
        return BadRow("no_answer", "the conversation does not end with the assistant")
    weight = row.get("weight")
    if weight is not None and not (isinstance(weight, int | float) and 0 <= weight < float("inf")):
        return BadRow("bad_weight", repr(weight)[:40])
    found = {name: row.get(name) for name in SFT.names}
    pid = found["prompt_id"] or prompt_id(messages[:-1], None, json_text(row.get("tools")))
    return {
        **found, "prompt_id": pid, "messages": messages, "tools": json_text(row.get("tools")),
        "source": str(row.get("source") or source),
    }  # fmt: skip


def find_prompt(row: Mapping[str, Any]) -> tuple["list[Message] | BadRow", set[str]]:
    """The prompt's messages and the columns they came from. A conversation's last assistant turn is not of it."""
    for name in CONVERSATIONS:
        if row.get(name) is not None:
            messages = read_conversation(row[name])
            if isinstance(messages, BadRow):
                return messages, {name}
            while messages and messages[-1]["role"] == "assistant":
                messages = messages[:-1]
            return messages or BadRow("empty_prompt", f"{name} holds no turn before the answer"), {name}
    for name in PROMPT_COLUMNS:
        if name not in row:
            continue
        value, used = row[name], {name}
        if isinstance(value, list):
            return read_conversation(value), used
        if not isinstance(value, str):
            return BadRow("bad_prompt", f"{name} holds a {type(value).__name__}"), used
        context = next((c for c in CONTEXT_COLUMNS if name == "instruction" and c in row), None)
        extra = row.get(context) if context else None
        if extra is not None and not isinstance(extra, str):
            return BadRow("bad_prompt", f"{context} holds a {type(extra).__name__}"), used
        text = f"{value}\n\n{extra}" if extra and extra.strip() else value
        if not text.strip():
            return BadRow("empty_prompt", name), used
        return [{"role": "user", "content": text}], used | ({context} if context else set())
    return BadRow("no_known_columns", ", ".join(row)[:120]), set()


def read_conversation(value: Any) -> "list[Message] | BadRow":
    """Messages from a list of {role, content} or {from, value}, or its JSON text. Roles are mapped to ours."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return BadRow("bad_messages", "a text that is no JSON list")
    if not isinstance(value, list) or not value:
        return BadRow("bad_messages", "no list of messages")
    messages: list[Message] = []
    for i, turn in enumerate(value):
        if not isinstance(turn, Mapping):
            return BadRow("bad_messages", f"message {i} is a {type(turn).__name__}")
        role, content = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
        role = ROLE_NAMES.get(str(role).lower(), str(role).lower())
        if role not in ROLES:
            return BadRow("unknown_role", f"message {i}: {role!r}"[:80])
        if not isinstance(content, str):
            return BadRow("bad_messages", f"message {i} holds a {type(content).__name__}, not a text")
        messages.append({"role": role, "content": content})
    return messages


def find_truth(row: Mapping[str, Any], used: set[str]) -> tuple["str | BadRow | None", set[str]]:
    """The ground truth as text and its column. "…#### 42" → "42"; numbers and lists become their JSON text."""
    reward = row.get("reward_model")
    if isinstance(reward, Mapping) and reward.get("ground_truth") is not None:
        return str(reward["ground_truth"]), {"reward_model"}
    name = next((c for c in TRUTH_COLUMNS if c not in used and row.get(c) is not None), None)
    if name is None:
        return None, set()
    value = row[name]
    if isinstance(value, float) and value != value:
        return BadRow("bad_truth", f"{name} is NaN"), {name}
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    if "####" in text:
        text = text.rsplit("####", 1)[1].strip()
    return text, {name}


def _with_answer(prompt: list[Message], answer: Any) -> "list[Message] | BadRow":
    if isinstance(answer, str):
        return [*prompt, {"role": "assistant", "content": answer}]
    if isinstance(answer, list):
        turns = read_conversation(answer)
        return turns if isinstance(turns, BadRow) else [*prompt, *turns]
    return BadRow("no_answer", f"none of {', '.join(ANSWER_COLUMNS)} holds a text")


def _extra(row: Mapping[str, Any], used: set[str]) -> str | None:
    """Columns that were not used, as JSON text; a NaN in them becomes null."""
    known = {*used, *PROMPTS.names, *IDS}
    rest = {k: _jsonable(v) for k, v in row.items() if k not in known and v is not None}
    return canonical_json(rest) if rest else None


def _jsonable(value: Any) -> Any:
    if isinstance(value, float) and (value != value or abs(value) == float("inf")):
        return None
    if isinstance(value, Mapping):
        return {str(k): _jsonable(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(v) for v in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def json_text(value: Any) -> str | None:
    """Tool schemas as JSON text, whichever way they came."""
    if value is None or value == "" or value == []:
        return None
    return value if isinstance(value, str) else canonical_json(_jsonable(value))


def text_or_none(value: Any) -> str | None:
    return None if value is None else str(value)
