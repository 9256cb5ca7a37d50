"""LanguageMatch: whether an answer is in the language of its prompt."""

from dataclasses import dataclass

import pyarrow as pa

from curation.errors import InputError
from curation.score import NO_VERDICT, Verdict

SHORTEST = 20  # letters below which a guess of the language is not to be trusted


@dataclass(frozen=True)
class LanguageMatch:
    """1 if prompt and answer are in one language, as py3langid tells it; texts too short to tell have no verdict."""

    shortest: int = SHORTEST

    @property
    def name(self) -> str:
        return "language"

    def __call__(self, rows: pa.Table) -> list[Verdict]:
        try:
            import py3langid
        except ImportError as e:
            raise InputError(
                "reward", "py3langid not installed", "py3langid", "pip install 'thresher[language]'"
            ) from e
        asked = ["\n".join(m["content"] for m in p if m["role"] == "user") for p in rows["prompt"].to_pylist()]
        found = []
        for prompt, answer in zip(asked, rows["completion"].to_pylist(), strict=True):
            if min(sum(c.isalpha() for c in text) for text in (prompt, answer)) < self.shortest:
                found.append(Verdict(NO_VERDICT, "too_short"))
                continue
            languages = [py3langid.classify(text)[0] for text in (prompt, answer)]
            found.append(Verdict(float(languages[0] == languages[1]), " and ".join(languages)))
        return found
