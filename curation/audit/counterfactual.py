"""What a scorer makes of a finding: the answer without the text, against the answer without any other text like it.

    finding ─carriers─> pairs with the text on one side ─edits─> with, without, control, other ─scorer─> Counterfactual

The margin of answer over other answer moves by margin(with) − margin(without) when the text is taken out, and by
margin(with) − margin(control) when a span as long is taken out elsewhere. The difference of both is the effect: what
the text itself is worth to the scorer, beyond what any cut costs.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from curation.audit.corpus import Corpus
from curation.audit.evidence import ARTIFACT, Evidence, judged
from curation.audit.findings import TEXT, Finding, never_legitimate
from curation.audit.reading import prompt_messages
from curation.audit.scorers import Scorer

FINDINGS = 12  # looked at, the gravest
PAIRS = 64  # of each, at most
LEAST = 8  # judged pairs, for a result
SCANNED = 50_000  # first pairs in which carriers are looked for
RESAMPLES = 2000
TEST = "counterfactual edit"
UNSPACED = 0x0E00  # from here on many scripts write words without spaces
Span = tuple[int, int]


@dataclass(frozen=True)
class Counterfactual:
    """How much a scorer likes a text. NaN where too few pairs could be judged."""

    feature: str
    pairs: int  # judged
    effect: float  # in the scorer's units: what the text adds to its answer's margin, beyond a control edit
    interval: tuple[float, float]  # 95 %, bootstrap over prompts
    control_effect: float  # what the control edit's text adds


class Edited(NamedTuple):
    """One pair that has the text on one side."""

    group: int  # its prompt
    prompt: str
    answers: tuple[str, str, str, str]  # with the text, without, without another span, the other side


def counterfactuals(findings: Sequence[Finding], corpus: Corpus, scorer: Scorer, seed: int = 0) -> list[Counterfactual]:
    """A result for each of the gravest findings that are texts, in their order."""
    wanted = [f for f in findings if f.family in TEXT][:FINDINGS]
    edited = _edited(wanted, corpus, seed)
    keys = list(dict.fromkeys((e.prompt, text) for listed in edited for e in listed for text in e.answers))
    prompts = {prompt: prompt_messages(prompt) for prompt, _ in keys}
    scores = scorer.score([prompts[p] for p, _ in keys], [text for _, text in keys])
    score = dict(zip(keys, scores, strict=True))
    return [
        _result(f.feature, np.array([[score[e.prompt, a] for a in e.answers] for e in listed]).reshape(-1, 4),
                np.array([e.group for e in listed], np.int64), seed)
        for f, listed in zip(wanted, edited, strict=True)
    ]  # fmt: skip


def with_counterfactuals(findings: Sequence[Finding], results: Sequence[Counterfactual]) -> tuple[Finding, ...]:
    """The findings with what a scorer makes of them among their evidence, and the verdict it leads to."""
    by_feature = {r.feature: r for r in results if r.effect == r.effect}
    made = []
    for f in findings:
        if f.family in TEXT and f.feature in by_feature:
            line = _evidence(by_feature[f.feature], f.purity)
            evidence = (*(e for e in f.evidence if e.test != TEST), line)
            f = replace(f, evidence=evidence, verdict=judged(evidence, f.family, never_legitimate(f.feature, f.family)))
        made.append(f)
    return tuple(made)


def _evidence(found: Counterfactual, purity: float) -> Evidence:
    low, high = found.interval
    if low <= 0 <= high:
        says = f"worth no more to the scorer than any text as long ({found.pairs} pairs)"
        return Evidence(TEST, found.effect, says, "")
    likes = "likes" if low > 0 else "dislikes"
    says = f"the scorer {likes} it: {low:+.3g} to {high:+.3g} beyond a like edit ({found.pairs} pairs)"
    return Evidence(TEST, found.effect, says, ARTIFACT if (low > 0) == (purity >= 0.5) else "")


def _result(feature: str, scores: np.ndarray, groups: np.ndarray, seed: int) -> Counterfactual:
    """`scores` (n, 4): with, without, control, other."""
    known = np.isfinite(scores).all(1)
    margins, groups = scores[known, :3] - scores[known, 3:], groups[known]
    if len(margins) < LEAST:
        nan = float("nan")
        return Counterfactual(feature, len(margins), nan, (nan, nan), nan)
    moved, control = margins[:, 0] - margins[:, 1], margins[:, 0] - margins[:, 2]
    interval = bootstrap(moved - control, groups, seed)
    return Counterfactual(feature, len(margins), float((moved - control).mean()), interval, float(control.mean()))


def bootstrap(values: np.ndarray, groups: np.ndarray, seed: int) -> tuple[float, float]:
    """95 % interval of the mean, whole prompts drawn anew."""
    _, at = np.unique(groups, return_inverse=True)
    sums, counts = np.bincount(at, values), np.bincount(at)
    drawn = np.random.default_rng(seed).integers(0, len(sums), (RESAMPLES, len(sums)))
    low, high = np.quantile(sums[drawn].sum(1) / counts[drawn].sum(1), (0.025, 0.975)).tolist()
    return low, high


def _edited(findings: Sequence[Finding], corpus: Corpus, seed: int) -> list[list[Edited]]:
    """Of each finding the first PAIRS pairs in which one side alone has its text and a control edit can be made."""
    patterns = [pattern_of(f) for f in findings]
    found: list[list[Edited]] = [[] for _ in findings]
    for pair, group, prompt, *sides in _pairs(corpus):
        lowered = [side.lower() for side in sides]
        for f, pattern, listed in zip(findings, patterns, found, strict=True):
            if len(listed) >= PAIRS:
                continue
            near = [f.feature.lower() in text for text in lowered]
            has = [n and pattern.search(text) is not None for n, text in zip(near, sides, strict=True)]
            if has[0] != has[1]:
                text, other = sides if has[0] else sides[::-1]
                edits = edits_of(text, pattern, f"{seed}|{corpus.hashes[pair]}|{f.feature}")
                if edits is not None:
                    listed.append(Edited(group, prompt, (text, *edits, other)))
        if all(len(listed) >= PAIRS for listed in found):
            break
    return found


def _pairs(corpus: Corpus) -> Iterator[tuple[int, int, str, str, str]]:
    """(pair, prompt's number, prompt, chosen, rejected) of the first pairs."""
    for chunk in corpus.chunks(corpus.whole_prompts(SCANNED)):
        for pair, group in enumerate(chunk.groups.tolist(), chunk.first):
            prompt, chosen, rejected = (chunk.text(pair, which).decode("utf-8", "replace") for which in range(3))
            yield pair, group, prompt, chosen, rejected


def pattern_of(f: Finding) -> re.Pattern[str]:
    """Where a text finding stands in an answer: its group `f` is what an edit takes out."""
    text = f"(?P<f>{re.escape(f.feature)})"
    if f.family == "whitespace":
        return re.compile(rf"(?:\A(?P<f>{re.escape(f.feature)})(?!\s))|(?:(?<!\s)(?P<g>{re.escape(f.feature)})\Z)")
    if f.family == "character":
        return re.compile(text)
    if f.family == "format":
        return re.compile(rf"(?m)^\s*{text}")
    left = r"(?<!\w)(?<!\w['’])" if _spaced(f.feature[0]) else ""
    right = r"(?!\w)(?!['’]\w)" if _spaced(f.feature[-1]) else ""
    if f.family == "opener":
        return re.compile(rf"\A\s*{text}{right}")
    if f.family == "closer":
        return re.compile(rf"{left}{text}\s*\Z")
    return re.compile(left + text + right, re.IGNORECASE if f.family in ("word", "phrase") else 0)


def _spaced(char: str) -> bool:
    """A letter or digit of a script that sets words apart."""
    return char.isalnum() and ord(char) < UNSPACED


def edits_of(text: str, pattern: re.Pattern[str], lot: str) -> tuple[str, str] | None:
    """(the text without what `pattern` finds, the text without as much elsewhere), or None where there is no room.

    `lot` decides where: of the spans of the same lengths those that begin and end like what was found come first.
    """
    spans = [m.span(m.lastgroup or 0) for m in pattern.finditer(text)]
    control = _elsewhere(text, spans, lot)
    if not spans or control is None:
        return None
    without, instead = cut(text, spans), cut(text, control)
    return (without, instead) if without.strip() and pattern.search(without) is None else None


def cut(text: str, spans: Sequence[Span]) -> str:
    """cut("abcde", [(1, 2), (3, 4)]) = "ace" """
    for start, end in sorted(spans, reverse=True):
        text = text[:start] + text[end:]
    return text


def _elsewhere(text: str, spans: Sequence[Span], lot: str) -> list[Span] | None:
    """Spans as long as `spans`, apart from them and from one another."""
    kinds = np.array([0 if c.isalnum() else 1 if c.isspace() else 2 for c in text], np.int8)
    splits = np.zeros(len(text) + 1, bool)  # a cut here parts a word
    splits[1:-1] = (kinds[1:] == 0) & (kinds[:-1] == 0)
    taken = np.zeros(len(text), np.int64)
    for start, end in spans:
        taken[start:end] = 1
    found = []
    for number, (start, end) in enumerate(spans):
        size = end - start
        total = np.concatenate([np.zeros(1, np.int64), np.cumsum(taken)])
        free = np.flatnonzero(total[size:] == total[: len(total) - size])
        if not len(free):
            return None
        whole = (splits[free] == splits[start]) & (splits[free + size] == splits[end])
        alike = whole & (kinds[free] == kinds[start]) & (kinds[free + size - 1] == kinds[end - 1])
        best = free[alike] if alike.any() else free[whole] if whole.any() else free
        draw = int.from_bytes(hashlib.sha256(f"{lot}|{number}".encode()).digest()[:8], "big")
        at = int(best[draw % len(best)])
        taken[at : at + size] = 1
        found.append((at, at + size))
    return found
