"""The same normalisation of both sides of every pair: what nobody means by it shall not tell the sides apart.

always        whitespace at the ends, line ends, odd spaces, invisible characters, NFC, curly quotes, bullet glyphs
where listed  a canned first or last sentence is cut, names of vendors are masked
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from curation.audit.lexicons import LEXICONS
from curation.audit.repairs.cuts import ends_of, sentence, without
from curation.audit.repairs.pairs import Gone, Made, Pairs, texts_of, with_texts
from curation.audit.repairs.pairs import without as rows_without
from curation.audit.repairs.places import Reader
from curation.audit.repairs.targets import Target

MASK = "[name]"
SEVERAL = 3  # texts that begin or end with a sentence make it a canned one
CANNED = 0.9  # of the texts that have a feature must have it in a short first or last sentence
HIDDEN = re.compile("[\u200b\u2060-\u2064\ufeff\u00ad\u180e\ufff9-\ufffb\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
DIRECTIONS = re.compile("[\u200e\u200f\u202a-\u202e\u2066-\u2069]")  # meant where a text runs from right to left
RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufeff]")
# Joiners are meant between emoji and in scripts whose letters join; beside ASCII, a space or an end they are not.
JOINERS = re.compile("(?<![^\x00-\u02ff\u2000-\u206f])[\u200c\u200d]|[\u200c\u200d](?![^\x00-\u02ff\u2000-\u206f])")
SPACES = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
BREAKS = re.compile("\r\n|[\r\u0085\u2028\u2029]")
BULLETS = re.compile(r"(?m)^([ ]*)[•◦▪▫‣⁃∙●○■□*][ ]+(?=\S)")
QUOTES = str.maketrans({"‘": "'", "’": "'", "‚": "'", "‛": "'", "“": '"', "”": '"', "„": '"', "‟": '"'})


@dataclass(frozen=True)
class Canonicalise:
    """Both sides of every pair made canonical."""

    tolerance: float = 0.01
    name = "canonicalise"
    by_targets = True

    def __call__(self, pairs: Pairs, targets: Sequence[Target], workers: int = 1) -> Made:
        texts_now = texts_of(pairs.rows)
        ends = {t: end for t in targets if (end := canned(t, texts_now))}
        reader = Reader([t.number for t in ends])
        known = repeated(texts_now) if ends else frozenset()
        masked = any(names_a_vendor(t) for t in targets)
        covered = frozenset(t for t in targets if t in ends or (masked and names_a_vendor(t)) or is_normalised(t))
        texts, gone, why = {}, list[Gone](), {}
        for i, (name, *sides) in enumerate(zip(pairs.ids, *texts_now, strict=True)):
            made = [mended(side, list(ends.items()), reader, masked, known) for side in sides]
            if made == sides:
                continue
            if not all(t.strip() for t in made):
                gone.append((name, "nothing_left", "a side is only what was taken out"))
            elif made[0] == made[1]:
                gone.append((name, "no_difference", "the sides differed only in what was made canonical"))
            else:
                texts[i], why[name] = (made[0], made[1]), "canonicalised"
        says = ["names of vendors are masked"] if masked else []
        says += [f"first or last sentences cut: {', '.join(repr(t.feature) for t in list(ends)[:8])}"] if ends else []
        return Made(rows_without(with_texts(pairs.rows, texts), gone), gone, why, {}, says, covered)


def canned(target: Target, texts: tuple[Sequence[str], Sequence[str]]) -> str:
    """ "opener" or "closer" where a feature is one, or stands nearly always in a short first or last sentence; else ""."""
    if target.family in ("opener", "closer"):
        return target.family
    if target.family not in ("word", "phrase", "cased") or "\n" in target.feature:
        return ""
    reader, seen, first, last = Reader([target.number]), 0, 0, 0
    for text in (t for pair in zip(*texts, strict=True) for t in pair):
        spans = reader.spans(text, target.number)
        if spans:
            at = [sentence(text.encode(), span) for span in spans]
            seen += 1
            first += at[0] is not None and len(at) == 1 and at[0][0] == 0
            last += at[0] is not None and len(at) == 1 and at[0][1] == len(text.encode())
    least = max(8, CANNED * seen)
    return "opener" if first >= least else "closer" if last >= least else ""


def is_normalised(target: Target) -> bool:
    """Whether no canonical text holds the feature."""
    if target.family == "whitespace" or not target.key:
        return target.family == "whitespace"
    reader = Reader([target.number])
    samples = [s for s in (f"a\n{target.feature}a", f"a{target.feature}a") if reader.has(s).any()]
    return bool(samples) and not any(reader.has(canonical(s)).any() for s in samples)


def repeated(texts: tuple[Sequence[str], Sequence[str]]) -> frozenset[str]:
    """First and last sentences that several texts have."""
    seen = Counter(s for side in texts for text in side for s in dict.fromkeys(ends_of(canonical(text))))
    return frozenset(s for s, n in seen.items() if n >= SEVERAL)


def mended(text: str, ends: Sequence[tuple[Target, str]], reader: Reader, masked: bool, known: frozenset[str]) -> str:
    """A text made canonical, its canned ends cut, until nothing changes."""
    for _ in range(8):
        old = text
        text = canonical(vendorless(text) if masked else text)
        while ends:
            left = next((e for e, there in zip(ends, reader.has(text).tolist(), strict=True) if there), None)
            cut = canonical(without(text, left[0], reader, left[1], known) or "") if left else text
            if cut == text:
                break
            text = cut
        if text == old:
            break
    return text


def canonical(text: str) -> str:
    """The text without what nobody sees and with one form of what has several. Doing it twice changes nothing."""
    while True:
        made = BREAKS.sub("\n", HIDDEN.sub("", text))
        made = made if RIGHT_TO_LEFT.search(made) else DIRECTIONS.sub("", made)
        made = unicodedata.normalize("NFC", JOINERS.sub("", SPACES.sub(" ", made)))
        parts = made.split("```")  # what stands between fences is code, and meant to the letter
        parts[::2] = [BULLETS.sub(r"\1- ", p.translate(QUOTES)) for p in parts[::2]]
        made = "```".join(parts).strip()
        if made == text:
            return made
        text = made


def names_a_vendor(target: Target) -> bool:
    """Whether a finding is the name of a vendor or of its model."""
    if target.family == "lexicon":
        return target.feature == "vendor"
    return target.family in ("word", "phrase", "cased", "opener", "closer") and bool(_vendors().search(target.feature))


def vendorless(text: str) -> str:
    """The text with names of vendors and their models masked."""
    return _vendors().sub(MASK, text)


@lru_cache(maxsize=1)
def _vendors() -> re.Pattern[str]:
    names = sorted(LEXICONS["vendor"], key=lambda n: (-len(n), n))
    spaced = [rf"(?<!\w){re.escape(n)}(?!\w)" if n.isascii() else re.escape(n) for n in names]
    return re.compile("|".join(s.replace(r"\ ", r"\s+") for s in spaced), re.IGNORECASE)
