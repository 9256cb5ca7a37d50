"""Messages to token ids, such that text from outside never becomes a control token.

A chat template is rendered to text and encoded once, as every trainer and server does, so that ids agree with
theirs. Then the control tokens are counted: there must be as many as in the same conversation with harmless
contents. Where there are more, some content spelled one (`<|im_end|>`): that conversation is encoded piece by piece
instead, its contents with special tokens switched off. Ids come from the template alone: no second BOS is added.

No torch here: curation and trainers share this file.
"""

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from curation.errors import InputError
from curation.schema import Message

NEUTRAL = "x"


def encode_chat(
    tokenizer: Any, messages: Sequence[Message], tools: str | None = None, add_generation_prompt: bool = False
) -> list[int]:
    """Token ids of one conversation. `tools` is a JSON list of tool schemas for the template.

    Raises InputError where the tokenizer has no chat template, the template refuses the roles, or `tools` is no JSON.
    """
    return encode_chats(tokenizer, [messages], [tools], add_generation_prompt)[0]


def encode_chats(
    tokenizer: Any,
    conversations: Sequence[Sequence[Message]],
    tools: Sequence[str | None] | None = None,
    add_generation_prompt: bool = False,
) -> list[list[int]]:
    """`encode_chat` for many conversations at once: one call of the tokenizer."""
    if not conversations:
        return []
    listed = tools if tools is not None else [None] * len(conversations)
    texts = [render(tokenizer, c, t, add_generation_prompt) for c, t in zip(conversations, listed, strict=True)]
    encoded: list[list[int]] = tokenizer(texts, add_special_tokens=False, return_attention_mask=False)["input_ids"]
    control = control_ids(tokenizer)
    for i, (ids, conversation, t) in enumerate(zip(encoded, conversations, listed, strict=True)):
        roles = tuple(m["role"] for m in conversation)
        expected = _control_count(_Keyed(tokenizer), roles, t, add_generation_prompt)
        if sum(token in control for token in ids) != expected:
            encoded[i] = _encode_pieces(tokenizer, conversation, t, add_generation_prompt, expected)
    return encoded


def encode_prompts(
    tokenizer: Any, conversations: Sequence[Sequence[Message]], tools: Sequence[str | None]
) -> list[list[int] | str]:
    """Ids of every conversation with the generation prompt, or why it has none: one refused row spoils no batch."""
    try:
        return list(encode_chats(tokenizer, conversations, tools, add_generation_prompt=True))
    except InputError as e:
        if not tokenizer.chat_template:
            raise
        if len(conversations) == 1:
            return [str(e)]
    pairs = zip(conversations, tools, strict=True)
    return [found for c, t in pairs for found in encode_prompts(tokenizer, [c], [t])]


def encode_turns(tokenizer: Any, messages: Sequence[Message], tools: str | None = None) -> tuple[list[int], list[bool]]:
    """Ids of a whole conversation and which of them the assistant is taught.

    The boundary rule: of each assistant turn, what the conversation up to and with it adds beyond the longest common
    token prefix with the conversation before it plus the generation prompt. So the end-of-turn token is taught. A
    turn that the template later rewrites (dropped thinking) is not taught; the last one always is.
    """
    return encode_turns_batch(tokenizer, [messages], [tools])[0]


def encode_turns_batch(
    tokenizer: Any, conversations: Sequence[Sequence[Message]], tools: Sequence[str | None] | None = None
) -> list[tuple[list[int], list[bool]]]:
    """`encode_turns` for many conversations at once."""
    listed = tools if tools is not None else [None] * len(conversations)
    turns = [
        (c, i) for c, messages in enumerate(conversations) for i, m in enumerate(messages) if m["role"] == "assistant"
    ]
    before = encode_chats(tokenizer, [conversations[c][:i] for c, i in turns], [listed[c] for c, _ in turns], True)
    whole = encode_chats(tokenizer, conversations, listed)
    inner = [(c, i) for c, i in turns if i + 1 < len(conversations[c])]
    with_turn = encode_chats(tokenizer, [conversations[c][: i + 1] for c, i in inner], [listed[c] for c, _ in inner])
    upto = dict(zip(inner, with_turn, strict=True))
    masks = [[False] * len(ids) for ids in whole]
    for (c, i), prefix in zip(turns, before, strict=True):
        after = upto.get((c, i), whole[c])
        if whole[c][: len(after)] == after:
            start = common_prefix(prefix, after)
            masks[c][start : len(after)] = [True] * (len(after) - start)
    return list(zip(whole, masks, strict=True))


def encode_completions(
    tokenizer: Any,
    prompts: Sequence[Sequence[Message]],
    completions: Sequence[Sequence[Message]],
    tools: Sequence[str | None] | None = None,
) -> list[tuple[list[int], int]]:
    """(ids of prompt and completion, where the completion begins) by the same boundary rule; earlier turns are prompt."""
    listed = tools if tools is not None else [None] * len(prompts)
    before = encode_chats(tokenizer, prompts, listed, add_generation_prompt=True)
    whole = encode_chats(tokenizer, [[*p, *c] for p, c in zip(prompts, completions, strict=True)], listed)
    return [(ids, common_prefix(start, ids)) for start, ids in zip(before, whole, strict=True)]


def control_ids(tokenizer: Any) -> frozenset[int]:
    """Ids that steer a model: the special tokens, named or not, but for the one that stands for unknown text."""
    unnamed = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return (frozenset(tokenizer.all_special_ids) | unnamed) - {tokenizer.unk_token_id}


def render(tokenizer: Any, messages: Sequence[Message], tools: str | None, add_generation_prompt: bool) -> str:
    """The template's text. Raises InputError."""
    from jinja2.exceptions import TemplateError

    if not tokenizer.chat_template:
        raise InputError(
            "tokenizer", "no chat template", "one in tokenizer_config.json", "use an instruct model's folder"
        )
    try:
        schemas = json.loads(tools) if tools else None
        return str(
            tokenizer.apply_chat_template(
                list(messages), tools=schemas, add_generation_prompt=add_generation_prompt, tokenize=False
            )
        )
    except json.JSONDecodeError as e:
        raise InputError("tools", f"no JSON ({e.msg})", "a JSON list of tool schemas", "mend the tools column") from e
    except TemplateError as e:
        roles = ", ".join(m["role"] for m in messages)
        raise InputError("chat template", f"refusal: {e}", "roles it takes", f"this conversation has {roles}") from e


class _Keyed:
    """A tokenizer as a cache key: same object, same template."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.key = (id(tokenizer), tokenizer.chat_template)

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Keyed) and self.key == other.key


@lru_cache(maxsize=4096)
def _control_count(keyed: _Keyed, roles: tuple[str, ...], tools: str | None, add_generation_prompt: bool) -> int:
    """Control tokens in a conversation of these roles whose contents are harmless."""
    tokenizer = keyed.tokenizer
    harmless = [{"role": role, "content": NEUTRAL} for role in roles]
    ids = tokenizer(render(tokenizer, harmless, tools, add_generation_prompt), add_special_tokens=False)["input_ids"]
    control = control_ids(tokenizer)
    return sum(token in control for token in ids)


def _encode_pieces(
    tokenizer: Any, messages: Sequence[Message], tools: str | None, add_generation_prompt: bool, expected: int
) -> list[int]:
    """Template text and contents encoded apart: contents with special tokens off. Raises InputError if that fails."""
    marks = [f"\ue000{i}\ue001" for i in range(len(messages))]
    marked = [{"role": m["role"], "content": mark} for m, mark in zip(messages, marks, strict=True)]
    text = render(tokenizer, marked, tools, add_generation_prompt)
    ids: list[int] = []
    for message, mark in zip(messages, marks, strict=True):
        head, found, text = text.partition(mark)
        if not found:  # a template may leave a message out (a system prompt it has no place for)
            text = head
            continue
        ids += tokenizer(head, add_special_tokens=False)["input_ids"]
        ids += tokenizer(message["content"], add_special_tokens=False, split_special_tokens=True)["input_ids"]
    ids += tokenizer(text, add_special_tokens=False)["input_ids"]
    control = control_ids(tokenizer)
    if sum(token in control for token in ids) > expected:
        raise InputError(
            "chat", "text that spells control tokens even in pieces", f"{expected} control tokens", "set this row aside"
        )
    return ids


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two rows begin with alike: common_prefix([1, 2, 3], [1, 2, 4]) = 2"""
    n = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        n += 1
    return n
