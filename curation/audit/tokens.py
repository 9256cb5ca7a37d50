"""What the loss sees of a pair: token ids after the chat template, the end of the turn and the cut at a length.

    chunk ─ prompt_messages, encode_chats ─> a row of `Seen` per pair ─> Signed features of family "token"

Ids are those the preference trainers of this house are given. They leave a pair out that is longer than `max_length`;
others cut it there, whereupon the longer side silently loses its end token. A special token that an answer spells is
never a control token here; elsewhere it often becomes one, so it is looked for in the text.
"""

import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from curation.audit.corpus import Chunk, Corpus
from curation.audit.findings import MORE_TOKENS
from curation.audit.incidence import Signed
from curation.audit.reading import prompt_messages
from curation.chat import common_prefix, control_ids, encode_chats, encode_completions
from curation.errors import InputError
from curation.schema import Message

LEAST = 8  # pairs in which a feature must be one-sided
MOST = 300  # features, the commonest; what is asked of every set comes first
MOST_BYTES = 128 * 2**20  # of their signs
AT_ONCE = 1024  # pairs encoded in one call of the tokenizer
END = 3  # last tokens among which a turn's end token stands: templates add a line break to it
TRUNCATED, NO_END, MERGED, UNKNOWN, FRAGMENT, DOUBLED = (1 << bit for bit in range(6))


@dataclass(frozen=True)
class Marks:
    """What there is to know of a tokenizer once."""

    tail: tuple[int, ...]  # what the template puts behind an answer
    ends: frozenset[int]  # tokens that end a turn
    end_texts: tuple[str, ...]
    specials: re.Pattern[str] | None  # any special token as text
    unknown: frozenset[int]
    fragments: frozenset[int]  # tokens that are no whole character: byte fallback, pieces of an emoji


@dataclass(frozen=True)
class Seen:
    """What was seen of N pairs: chosen, rejected."""

    first: np.ndarray  # int32 (N, 2): first token of the answer; −1: there is none within the length
    last: np.ndarray  # int32 (N, 2): last token before the template's end of turn
    tokens: np.ndarray  # int32 (N, 2): of the whole answer with its end of turn; −1: the template refuses the pair
    flags: np.ndarray  # uint8 (N, 2)
    spelled: "dict[str, array[int]]" = field(
        default_factory=dict
    )  # special token: ±(pair + 1) where one side spells it

    @staticmethod
    def empty(pairs: int) -> "Seen":
        first, last, tokens = (np.full((pairs, 2), -1, np.int32) for _ in range(3))
        return Seen(first, last, tokens, np.zeros((pairs, 2), np.uint8))


def token_features(corpus: Corpus, tokenizer: str, max_length: int) -> list[Signed]:
    """Features of the token ids of all pairs that are one-sided in at least LEAST of them, MOST at most.

    `tokenizer`: a folder or Hub id. A pair that its template refuses has none. Raises InputError without a template.
    """
    loaded = load_tokenizer(tokenizer)
    marks = marks_of(loaded)
    seen = Seen.empty(corpus.pairs)
    for chunk in corpus.chunks():
        for at in range(0, chunk.pairs, AT_ONCE):
            _read(loaded, marks, chunk, at, max_length, seen)
    room = max(1, min(MOST, MOST_BYTES // max(1, corpus.pairs)))
    found = []
    for one in _features(loaded, seen, max_length):
        if np.count_nonzero(one.signs) >= LEAST:
            found.append(one)
        if len(found) == room:
            break
    return found


def load_tokenizer(name: str) -> Any:
    """A tokenizer that warns of no length. Raises InputError."""
    from transformers import AutoTokenizer

    try:
        loaded = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError) as e:
        first = str(e).strip().split("\n")[0][:200]
        raise InputError(f"tokenizer {name}", first, "a folder or Hub id with a tokenizer", "check --tokenizer") from e
    loaded.model_max_length = 1 << 30
    return loaded


def marks_of(tokenizer: Any) -> Marks:
    """Read off a harmless conversation and the vocabulary. Raises InputError without a chat template."""
    special = {i: token.content for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    special |= {i: str(tokenizer.convert_ids_to_tokens(i)) for i in control_ids(tokenizer)}
    messages = [{"role": role, "content": "x"} for role in ("user", "assistant")]
    ids, start = encode_completions(tokenizer, [messages[:1]], [messages[1:]])[0]
    body = ids[start:]
    tail = next((tuple(body[at:]) for at in range(max(0, len(body) - END), len(body)) if body[at] in special), ())
    ends = {i for i in (*tail, tokenizer.eos_token_id) if i in special}
    texts = sorted(filter(None, {*special.values(), tokenizer.unk_token or ""}), key=lambda t: (-len(t), t))
    alone = tokenizer.batch_decode([[i] for i in range(len(tokenizer))], clean_up_tokenization_spaces=False)
    return Marks(
        tail, frozenset(ends), tuple(sorted(special[i] for i in ends)),
        re.compile("|".join(map(re.escape, texts))) if texts else None,
        frozenset({tokenizer.unk_token_id} - {None}), frozenset(i for i, text in enumerate(alone) if "\ufffd" in text),
    )  # fmt: skip


def _read(tokenizer: Any, marks: Marks, chunk: Chunk, at: int, max_length: int, seen: Seen) -> None:
    """Fill the rows of `seen` for the pairs of a chunk from its `at`-th on, AT_ONCE at most."""
    pairs = range(chunk.first + at, chunk.first + min(chunk.pairs, at + AT_ONCE))
    texts = [[chunk.text(p, which).decode("utf-8", "replace") for p in pairs] for which in range(3)]
    prompts = {text: prompt_messages(text) for text in texts[0]}
    before = dict(zip(prompts, _encoded(tokenizer, list(prompts.values()), True), strict=True))
    for side in range(2):
        answers: list[Message] = [{"role": "assistant", "content": text} for text in texts[1 + side]]
        whole = _encoded(tokenizer, [[*prompts[p], a] for p, a in zip(texts[0], answers, strict=True)], False)
        for pair, prompt, text, ids in zip(pairs, texts[0], texts[1 + side], whole, strict=True):
            opening = before[prompt]
            if ids is not None and opening is not None:
                _note(marks, opening, ids, text, max_length, pair, side, seen)
    if marks.specials is not None:
        for pair, *sides in zip(pairs, *texts[1:], strict=True):
            chosen, rejected = (set(marks.specials.findall(text)) for text in sides)
            for token in chosen ^ rejected:
                seen.spelled.setdefault(token, array("q")).append(pair + 1 if token in chosen else -pair - 1)


def _encoded(
    tokenizer: Any, conversations: Sequence[Sequence[Message]], add_generation_prompt: bool
) -> list[list[int] | None]:
    """Ids of every conversation, None where the template refuses it. Raises InputError where there is no template."""
    try:
        return list(encode_chats(tokenizer, conversations, None, add_generation_prompt))
    except InputError:
        if not tokenizer.chat_template:
            raise
    if len(conversations) == 1:
        return [None]
    half = len(conversations) // 2
    parts = conversations[:half], conversations[half:]
    return [ids for part in parts for ids in _encoded(tokenizer, part, add_generation_prompt)]


def _note(
    marks: Marks, opening: Sequence[int], ids: Sequence[int], text: str, max_length: int, pair: int, side: int, seen: Seen
) -> None:  # fmt: skip
    """One side of a pair: `ids` of prompt and answer, `opening` those of the prompt alone."""
    start = common_prefix(opening, ids)
    body, kept = ids[start:], ids[start:max_length]
    ended = len(marks.tail) > 0 and tuple(body[-len(marks.tail) :]) == marks.tail
    answer = body[: len(body) - len(marks.tail)] if ended else body
    answer = answer[: max(0, max_length - start)]
    seen.tokens[pair, side] = len(body)
    seen.first[pair, side] = kept[0] if kept else -1
    seen.last[pair, side] = answer[-1] if answer else -1
    seen.flags[pair, side] = (
        TRUNCATED * (len(ids) > max_length)
        | NO_END * marks.ends.isdisjoint(kept[-END:])
        | MERGED * (start < len(opening))
        | UNKNOWN * (not marks.unknown.isdisjoint(body))
        | FRAGMENT * (not marks.fragments.isdisjoint(body))
        | DOUBLED * text.rstrip().endswith(marks.end_texts)
    )


def _features(tokenizer: Any, seen: Seen, max_length: int) -> Iterator[Signed]:
    """Every feature, those asked of every set first, then the commonest."""
    known: np.ndarray = np.all(seen.tokens >= 0, axis=1)
    yield Signed("number", MORE_TOKENS, (np.sign(seen.tokens[:, 0] - seen.tokens[:, 1]) * known).astype(np.int8))
    names = {
        NO_END: f"no end token within {max_length} tokens", TRUNCATED: f"truncated at {max_length} tokens",
        DOUBLED: "doubled end token", MERGED: "prompt's last token merges with the answer's first",
        UNKNOWN: "unknown tokens", FRAGMENT: "tokens that are parts of a character",
    }  # fmt: skip
    for bit, name in names.items():
        has = (seen.flags & bit != 0).astype(np.int8)
        yield Signed("token", name, ((has[:, 0] - has[:, 1]) * known).astype(np.int8))
    for token, pairs in sorted(seen.spelled.items(), key=lambda s: (-len(s[1]), s[0])):
        at = np.frombuffer(pairs, np.int64)
        signs = np.zeros(len(known), np.int8)
        signs[np.abs(at) - 1] = np.sign(at)
        yield Signed("token", f"special token {token!r} spelled in the answer", signs)
    found = [(-count, label, i, values) for label, values in (("first", seen.first), ("last", seen.last))
             for i, count in _one_sided(values)]  # fmt: skip
    for _, label, i, values in sorted(found, key=lambda f: f[:3]):
        has = (values == i).astype(np.int8)
        signs = (has[:, 0] - has[:, 1]) * np.all(values >= 0, axis=1)
        yield Signed("token", f"{label} token {i} {_shown(tokenizer, i)!r}", signs.astype(np.int8))


def _one_sided(values: np.ndarray) -> Iterator[tuple[int, int]]:
    """(token id, pairs in which one side alone has it) of those with LEAST pairs."""
    differ = values[(values[:, 0] != values[:, 1]) & (values >= 0).all(1)]
    count = np.bincount(differ.ravel(), minlength=1)
    for i in np.flatnonzero(count >= LEAST).tolist():
        yield i, int(count[i])


def _shown(tokenizer: Any, i: int) -> str:
    """A token as text, or as the vocabulary writes it where it is no text alone."""
    text = str(tokenizer.decode([i], clean_up_tokenization_spaces=False))
    return text if text and "\ufffd" not in text else str(tokenizer.convert_ids_to_tokens(i))
