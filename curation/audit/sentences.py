"""What an audit says in plain words: the same sentences for the page, for Markdown and for the terminal.

`quote` sets a text of the data as the medium wants it; all else is our own words and numbers.
"""

from collections.abc import Callable, Iterable, Sequence

from curation.audit.baseline import Comparison
from curation.audit.findings import SEVERITIES, Finding
from curation.audit.probe import Residual, Rung
from curation.audit.whole import Audit

Quoter = Callable[[str], str]
HEADLINES = {
    "block": "do not train on these pairs as they are",
    "warn": "look at these pairs before you train on them",
    "pass": "no shortcut found that should stop you",
}
RUNGS = {
    "length": "length alone",
    "surface": "+ counts: words, lines, lists …",
    "format": "+ openers, whitespace, format",
    "ngrams": "+ all words and phrases",
    "embeddings": "+ embeddings of the answers",
    "prompt": "+ kinds of prompts",
}
FAMILIES = {
    "whitespace": "Whitespace at the ends", "character": "Signs and characters", "format": "Format", "opener": "Openers",
    "closer": "Closers", "phrase": "Phrases", "word": "Words", "cased": "Words as they are spelt",
    "together": "Words that tell together", "number": "Measures", "lexicon": "Ways of speaking (word lists)",
    "language": "Languages", "script": "Scripts", "column": "Columns of the file", "token": "Tokens as the loss sees them",
    "trigger": "In prompts: what turns the preference round",
}  # fmt: skip
WEAK = 0.10  # bits: what the words of people's own preferences reach
MANY = 20  # phenomena that must be taken away before what is left is called a fingerprint
TEXTS, MEASURES = 6, 2  # features named on each side


def percent(share: float, digits: int = 1) -> str:
    """A share as it is read: 0.07%, 12.3%, 100%."""
    digits = 2 if 0 < share < 0.01 and digits == 1 else digits
    text = f"{100 * share:.{digits}f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text) + "%"


def counted(n: int, one: str, several: str = "") -> str:
    return f"{n:,} {one if n == 1 else several or one + 's'}"


def severities(findings: Iterable[Finding]) -> str:
    """How many findings there are of each severity, gravest first."""
    of = [f.severity for f in findings]
    return ", ".join(f"{of.count(s):,} {s}" for s in reversed(SEVERITIES) if s in of)


def size(done: Audit) -> str:
    """How much was looked at, and how much of it is a finding."""
    found = f"{counted(len(done.findings), 'is', 'are')}: {severities(done.findings)}" if done.findings else "none is"
    tried = f"{counted(done.tried, 'feature')} could have been findings, {found}"
    return f"{counted(done.pairs, 'pair')} of {counted(done.prompts, 'prompt')}; {tried}."


def taught(findings: Sequence[Finding]) -> tuple[list[str], list[str]]:
    """What a model would learn to write and to avoid: the gravest findings from warn on, texts before measures."""
    grave = [f for f in findings if f.severity != "info" and f.family not in ("column", "trigger")]
    grave.sort(key=lambda f: (-SEVERITIES.index(f.severity), -abs(f.pull), f.feature))
    texts, measures = ([f for f in grave if (f.family == "number") == measure] for measure in (False, True))
    return _named(texts, measures, 1), _named(texts, measures, -1)


def _named(texts: Sequence[Finding], measures: Sequence[Finding], side: int) -> list[str]:
    found = (dict.fromkeys(f.feature for f in some if f.pull * side > 0) for some in (texts, measures))
    return [name for names, most in zip(found, (TEXTS, MEASURES), strict=True) for name in list(names)[:most]]


def learned(done: Audit, quote: Quoter) -> list[str]:
    """What would be learned."""
    rungs = {r.name: r for r in done.probe}
    words, length, found = rungs["ngrams"], rungs["length"], []
    if words.least_bits <= 0:
        found.append(
            "From the answers alone a simple model cannot tell the chosen one of a new pair better than a coin."
        )
    else:
        found.append(
            "From the answers alone, without a look at the question, a simple model tells the chosen one in "
            f"{percent(words.accuracy, 0)} of pairs it has not seen; a coin would in 50%."
        )
    if length.least_bits > 0 and length.accuracy > 0.55:
        share = _longer_chosen(done)
        found.append(
            f"Length alone tells it in {percent(length.accuracy, 0)}: the {share} answer tends to be the chosen one."
        )
    if done.rules:
        feature, side, decided, right = done.rules[0]
        found.append(
            f"The one rule that tells most: the answer with {quote(feature)} is the {side} one, right in {right:,} of "
            f"{counted(decided, 'pair')}."
        )
    return found


def _longer_chosen(done: Audit) -> str:
    pairs = sum(c.pairs for c in done.lengths)
    longer = sum(c.pairs * c.longer_chosen for c in done.lengths)
    return "longer" if longer >= pairs / 2 else "shorter"


def limits(done: Audit) -> str:
    """The detection limit in one line."""
    parts = [
        f"{percent(float(purity), 0)} one-sided from {percent(least)} of pairs on"
        if least is not None
        else f"{percent(float(purity), 0)} one-sided never"
        for purity, least in done.detection_limit.items()
    ]
    return f"{counted(done.pairs, 'pair')} could have shown a word that is " + "; ".join(parts) + "."


def missed(done: Audit) -> str:
    """What could have been missed."""
    sure, half = done.detection_limit.get("1.0"), done.detection_limit.get("0.75")
    if sure is None:
        return f"{counted(done.pairs, 'pair')} are too few to show any shortcut of a single word, however plain."
    first = (
        f"A word that only ever stands on one side was sure to be seen (nine times in ten) from {percent(sure)} of the pairs "
        f"on, that is {counted(round(sure * done.pairs), 'pair')}; in fewer it may have gone unnoticed."
    )
    if half is None:
        return f"{first} One that is there only three times in four could not have been told from luck at all."
    return f"{first} One that is there three times in four needed {percent(half)}."


def meaning(residual: Sequence[Residual]) -> tuple[str, str]:
    """(steep, flat, between or nothing; what that says) of the residual curve."""
    whole, last = residual[0], residual[-1]
    if whole.bits < 0.02:
        return "nothing", "Words tell next to nothing, so there is nothing to take away."
    early = next((r for r in reversed(residual) if r.removed <= 20), whole)
    if early.bits <= whole.bits / 2:
        return "steep", (
            f"Steep: {early.removed} phenomena carry most of it. Edits or fewer rows help; see `thresher repair`."
        )
    if whole.bits < WEAK:
        return "weak", "Weak, and spread over many words: there is no single culprit to take out."
    if last.bits >= whole.bits * 0.7 and last.removed < MANY:
        gone = "the one finding" if last.removed == 1 else f"all {last.removed} findings"
        return "faint", (
            f"Flat: {percent(max(0.0, last.bits) / whole.bits, 0)} of it is left without {gone}. The rest "
            "is spread over words too faint to be findings of their own; edits will not reach them."
        )
    if last.bits >= whole.bits * 0.7:
        return "flat", (
            f"Flat: {percent(max(0.0, last.bits) / whole.bits, 0)} of it is left without the {last.removed} strongest phenomena. "
            "That is a fingerprint of who wrote which side: deleting words will not help, new answers will (both sides from "
            "one model)."
        )
    return "between", (
        f"In between: {percent(max(0.0, last.bits) / whole.bits, 0)} of it is left without the {last.removed} strongest "
        "phenomena. Edits help some; what is left is spread over many words."
    )


def compared(c: Comparison, quote: Quoter) -> list[str]:
    """What changed since the earlier audit, one sentence for each thing."""
    then, now = c.verdict
    found = [f"The verdict was {then} and is {now}."] if then != now else []
    found += [f"New: {quote(f.feature)}, {f.severity}, pull {f.pull:+.3f}." for f in c.new]
    for f, known in c.graver:
        level = f"{known.severity} became {f.severity}" if known.severity != f.severity else f"still {f.severity}"
        found.append(f"Graver: {quote(f.feature)}, {level}, pull {known.pull:+.3f} became {f.pull:+.3f}.")
    found += [
        f"The probe “{s.name}” tells {s.now:+.3f} bits, it was {s.was:+.3f} (luck: {s.noise:.3f})." for s in c.probe
    ]
    found += [f"Gone: {quote(k.feature)}, was {k.severity}, pull {k.pull:+.3f}." for k in c.gone]
    if c.same:
        found.append(f"Known, and no graver: {counted(len(c.same), 'finding')}.")
    was, are = c.pairs
    if c.new and are > 1.2 * was:
        found.append(
            f"The earlier audit had {was:,} pairs, this one has {are:,}: it could not have seen all that this one can."
        )
    return found


def of_rung(rung: Rung) -> str:
    return RUNGS.get(rung.name, rung.name)
