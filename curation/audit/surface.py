"""A feature as it stands in the data: its exact text, as long as its occurrences agree."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from curation.audit.corpus import Corpus
from curation.audit.incidence import Incidence, Signed

WITNESSES = 64  # occurrences looked at
LEAST = 6  # of them, for a text to grow
AGREE = 0.97  # share of them that must go on alike
FARTHEST = 240  # bytes a text may grow


@dataclass
class Surfaces:
    """The texts of features: of the first occurrence, or as long as nearly all occurrences go on alike."""

    found: Incidence
    corpus: Corpus
    signed: Sequence[Signed]
    _texts: dict[int, str] = field(default_factory=dict)

    @property
    def of_texts(self) -> int:
        """How many features are read from texts; the rest are `signed`."""
        return self.found.size - len(self.signed)

    def read(self, features: Sequence[int]) -> None:
        """Look up the first occurrences of many features at once."""
        wanted = [f for f in features if f < self.of_texts and f not in self._texts]
        texts = self.corpus.texts_of([int(self.found.example[f, 0]) for f in wanted])
        for f in wanted:
            pair, side, start, end = self.found.example[f].tolist()
            self._texts[f] = texts[pair][1 + side][start:end].decode("utf-8", "replace")

    def of(self, feature: int) -> str:
        """The text of a feature's first occurrence, or its name."""
        if feature >= self.of_texts:
            return self.signed[feature - self.of_texts].name
        if feature not in self._texts:
            self.read([feature])
        return self._texts[feature]


def grown(needle: str, texts: Sequence[bytes], at_end: bool) -> str:
    """The needle, longer by what stands around it in nearly all of these texts: "helps" becomes "Hope this helps!".

    Grows by whole words and never by white space alone. `at_end`: its last occurrence is meant.
    """
    exact = needle.encode()
    found = [(t, t.rfind(exact) if at_end else t.find(exact)) for t in texts[:WITNESSES]]
    around = [(t[:at], t[at + len(exact) :]) for t, at in found if at >= 0]
    if len(around) < LEAST:
        return needle
    after = _whole_words(_common([b for _, b in around]), [b for _, b in around])
    before = _whole_words(_common([a[::-1] for a, _ in around]), [a[::-1] for a, _ in around])[::-1]
    return before.decode("utf-8", "ignore").lstrip() + needle + after.decode("utf-8", "ignore").rstrip()


def _common(sides: list[bytes]) -> bytes:
    """The longest beginning that nearly all have."""
    alive, length = sides, 0
    while length < FARTHEST:
        heads = Counter(s[length : length + 1] for s in alive)
        byte, n = min(heads.items(), key=lambda h: (-h[1], h[0]))
        if not byte or n < AGREE * len(sides):
            break
        alive = [s for s in alive if s[length : length + 1] == byte]
        length += 1
    return alive[0][:length]


def _whole_words(common: bytes, sides: list[bytes]) -> bytes:
    """Cut back to where no word is broken."""
    broken = any(s.startswith(common) and s[len(common) : len(common) + 1].isalnum() for s in sides)
    while broken and common and (common[-1:].isalnum() or common[-1:] == b"'"):
        common = common[:-1]
    return common
