"""The methods compared, each as named settings of the product's own rounds, and what the annotator sees.

The names follow the A²LC paper's ablation. `mask` asks about masks by 1 − confidence times similarity (CIL · SIM),
`abc` weighs the classes adaptively, `lcm` adds the paper's corrector to `mask`, `a2lc-paper` has both, and `a2lc` is
what a project gets when nobody sets anything.

`alc` and `alc-unique` are ALC, the paper's predecessor: the annotator looks at one pixel of a mask and its class goes
to the whole mask; `alc` may ask about the same mask again, as the published code does. The queue of both differs from
ALC's in one thing. ALC sums a(x) over a mask by each pixel's cosine to the soft label of the one representative pixel;
here, as in A²LC, the cosine is to the mean soft label f(m′), the very vector whose nearest pixel is the representative.
Where a mask's soft labels scatter little the two agree; where they scatter, the order of such masks may differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from a2lc_backend.settings import ProjectSettings, describe


class BenchError(ValueError):
    """A benchmark that cannot be run as asked; the message names the mend."""


@dataclass(frozen=True)
class Method:
    """One line of the benchmark's table.

    Attributes:
        name: on the command line and in the report.
        meaning: in the report, in words.
        settings: what differs from `ProjectSettings()`.
        one_pixel: the annotator sees only a mask's representative pixel.
    """

    name: str
    meaning: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    one_pixel: bool = False

    def project_settings(self, budget: int, seed: int) -> ProjectSettings:
        """The settings of one run.

        Args:
            budget: masks queried a round, 1 or more.
            seed: of everything random, segmenter included.

        Raises:
            BenchError: for a budget out of range, or a method whose settings the rounds do not offer.
        """
        values = {**self.settings, "budget": budget, "seed": seed}
        try:
            return ProjectSettings(**values)
        except ValidationError as error:
            raise BenchError(f"the method {self.name} cannot be run: {describe(error)}") from error


_PLAIN: Mapping[str, Any] = MappingProxyType({"corrector": "none", "ranking": "cil", "explore": 0.0, "audit": 0.0})

METHODS: Mapping[str, Method] = {
    method.name: method
    for method in (
        Method("alc", "ALC as published: one pixel a mask, repeats allowed", {**_PLAIN, "repeats": True}, True),
        Method("alc-unique", "ALC, no mask asked about twice", _PLAIN, True),
        Method("mask", "masks by CIL · SIM, no corrector", _PLAIN),
        Method("lcm", "mask + the paper's corrector", {**_PLAIN, "corrector": "paper"}),
        Method("abc", "mask + adaptive class weights", {**_PLAIN, "ranking": "abc"}),
        Method("a2lc-paper", "A²LC as in the paper: abc + lcm", {**_PLAIN, "ranking": "abc", "corrector": "paper"}),
        Method("a2lc", "the default of this program"),
    )
}
"""Every method by name, in the order of the report."""


def find_method(name: str) -> Method:
    """A method by its name.

    Raises:
        BenchError: for a name that no method has.
    """
    if name not in METHODS:
        raise BenchError(f"no method is called {name!r}; choose from {', '.join(METHODS)}")
    return METHODS[name]


def parse_methods(text: str) -> tuple[str, ...]:
    """Read a comma list of methods as the command line takes it.

    Raises:
        BenchError: for an unknown name or an empty list.
    """
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not names:
        raise BenchError(f"no method is named; choose from {', '.join(METHODS)}, separated by commas")
    return tuple(find_method(name).name for name in names)


def parse_seeds(text: str) -> tuple[int, ...]:
    """Read seeds as the command line takes them: `3` means 0, 1, 2; a comma makes a list, as in `0,2,5` or `7,`.

    Raises:
        BenchError: for anything that is no count and no list of numbers from 0 on.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isascii() and part.isdigit() for part in parts):
        raise BenchError(f"the seeds {text!r} are no numbers; give a count such as 3, or a list such as 0,1,2")
    numbers = tuple(dict.fromkeys(int(part) for part in parts))
    if "," in text:
        return numbers
    if numbers[0] < 1:
        raise BenchError("0 seeds leave nothing to run; give a count such as 3, or the list `0,` for the seed 0")
    return tuple(range(numbers[0]))
