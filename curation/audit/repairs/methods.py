"""What a method of repair is, and the ones there are."""

from collections.abc import Callable, Sequence
from typing import Protocol

from curation.audit.repairs.balance import Balance
from curation.audit.repairs.canonicalise import Canonicalise
from curation.audit.repairs.edit import Edit
from curation.audit.repairs.mismatch import Mismatch
from curation.audit.repairs.offset import Offset
from curation.audit.repairs.pairs import Made, Pairs
from curation.audit.repairs.reweight import Reweight
from curation.audit.repairs.rewrite import Rewrite
from curation.audit.repairs.targets import Target


class Method(Protocol):
    """A frozen dataclass that mends pairs. Applied to what it made, it changes nothing."""

    @property
    def name(self) -> str: ...
    @property
    def tolerance(self) -> float: ...
    @property
    def by_targets(self) -> bool:
        """Whether it depends on what is listed."""
        ...

    def __call__(self, pairs: Pairs, targets: Sequence[Target], workers: int = 1) -> Made: ...


METHODS: dict[str, Callable[..., Method]] = {
    "canonicalise": Canonicalise, "balance": Balance, "reweight": Reweight, "mismatch": Mismatch, "edit": Edit,
    "rewrite": Rewrite, "offset": Offset,
}  # fmt: skip
