"""The errors a user can meet, each of them one clear line.

Three borders raise them: reading input, checking a pipeline, parsing a command. Inside the house plain
assertions hold invariants; nothing is caught and swallowed. The command line prints the line and exits with
`exit_code`; no traceback is shown for these.
"""

from typing import ClassVar


class ThresherError(Exception):
    """What went wrong, as `where: found …; expected …; remedy`."""

    exit_code: ClassVar[int] = 2

    def __init__(self, where: str, found: str, expected: str, remedy: str) -> None:
        self.where, self.found, self.expected, self.remedy = where, found, expected, remedy
        super().__init__(one_line(f"{where}: found {found}; expected {expected}; {remedy}"))


class InputError(ThresherError):
    """A file, row or setting that cannot be used as it is."""


class PipelineError(ThresherError):
    """A list of stages that cannot run: a column nobody wrote, a setting that is no plain value, rows unaccounted for."""


class StorageError(ThresherError):
    """A shard, commit record or journal that is damaged, or a disk that is full."""


class EngineError(ThresherError):
    """An engine that cannot answer at all: model missing, wrong key, budget spent."""


class GateRefused(ThresherError):
    """A gate said no: the data is readable, but must not be trained on as it is."""

    exit_code: ClassVar[int] = 1


def one_line(text: str, limit: int = 600) -> str:
    """Control characters shown escaped, so that hostile input cannot draw on the terminal; cut at `limit`."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"
