"""Figures to a document: tables of medians, and of what was asked for."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Callable, Iterable, Optional, Sequence

from .contestants import Sample

MEGABYTE = 1_000_000


@dataclass
class Figures:
    """All samples by image, case and contestant."""

    samples: dict[tuple[str, str, str], list[Sample]] = field(default_factory=dict)

    def add(self, image: str, case: str, contestant: str, sample: Sample) -> None:
        self.samples.setdefault((image, case, contestant), []).append(sample)

    def of(self, image: str, case: str, contestant: str) -> list[Sample]:
        return self.samples.get((image, case, contestant), [])

    def images(self) -> list[str]:
        return list(dict.fromkeys(image for image, _, _ in self.samples))

    def contestants(self, image: str) -> list[str]:
        return list(dict.fromkeys(name for of, _, name in self.samples if of == image))

    def seconds(self, image: str, case: str, contestant: str, inside: bool = False) -> Optional[float]:
        """The median."""
        values = [sample.inside if inside else sample.seconds for sample in self.of(image, case, contestant)]
        known = [value for value in values if value is not None]
        return statistics.median(known) if known else None


@dataclass
class Requirement:
    """What a case must reach, and what it did."""

    case: str
    required: str
    measured: str
    reached: Optional[bool]

    def row(self) -> list[str]:
        return [self.case, self.required, self.measured, {True: "yes", False: "**no**", None: "not measured"}[self.reached]]


def at_least(case: str, wanted: float, slower: Optional[float], quicker: Optional[float], whom: str) -> Requirement:
    """How many times quicker than somebody."""
    required = f"{wanted:g} times faster than {whom}"
    if slower is None or quicker is None:
        return Requirement(case, required, "", None)
    ratio = slower / quicker
    return Requirement(case, required, f"{ratio:.1f} times ({duration(slower)} to {duration(quicker)})", ratio >= wanted)


def within(case: str, wanted: float, value: Optional[float], reference: Optional[float], what: str) -> Requirement:
    """How many times as long as a baseline."""
    required = f"within {wanted:g} of {what}"
    if value is None or reference is None:
        return Requirement(case, required, "", None)
    ratio = value / reference
    return Requirement(case, required, f"{ratio:.2f} ({duration(value)} to {duration(reference)})", ratio <= wanted)


def at_most(case: str, wanted: float, value: Optional[float], what: str, show: Callable[[float], str]) -> Requirement:
    required = f"{what}: at most {show(wanted)}"
    if value is None:
        return Requirement(case, required, "", None)
    return Requirement(case, required, show(value), value <= wanted)


def duration(seconds: float) -> str:
    """Three digits, in the unit that people would choose."""
    if seconds < 1:
        return f"{seconds * 1000:.{0 if seconds >= 0.1 else 1}f} ms"
    return f"{seconds:.2f} s"


def megabytes(size: float) -> str:
    return f"{size / MEGABYTE:.1f} MB"


def spread(values: Sequence[float]) -> str:
    """The median, and between what the runs were."""
    if not values:
        return "–"
    median = duration(statistics.median(values))
    if len(values) == 1:
        return median
    return f"{median} ({duration(min(values))} – {duration(max(values))})"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [list(header), ["---"] * len(header), *map(list, rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def case_table(figures: Figures, image: str, cases: Sequence[tuple[str, str]]) -> str:
    """A row a contestant, a column a case: whole commands, requests, and the time in the process."""
    shown = [(case, title) for case, title in cases if any(of == image and which == case for of, which, _ in figures.samples)]
    rows = []
    for contestant in figures.contestants(image):
        cells = [contestant]
        for case, _ in shown:
            cells.append(cell(figures.of(image, case, contestant)))
        rows.append(cells)
    return table(["", *(title for _, title in shown)], rows)


def cell(samples: Sequence[Sample]) -> str:
    if not samples:
        return "–"
    text = spread([sample.seconds for sample in samples])
    inside = [sample.inside for sample in samples if sample.inside is not None]
    if inside:
        text += f"; in the process {duration(statistics.median(inside))}"
    asked = [sample.requests for sample in samples if sample.requests is not None]
    if asked:
        count = statistics.median_low(asked)
        text += f"; {count} request{'' if count == 1 else 's'}"
    return text
