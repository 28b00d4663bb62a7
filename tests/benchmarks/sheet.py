"""What is measured, and what came out: figures with their bounds, samples, the table of both. No input or output."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypedDict


@dataclass(frozen=True)
class Figure:
    """A number that is measured; it is met when every sample is at most ``bound``. Without a bound it explains another one."""

    name: str
    unit: str
    bound: float | None = None


@dataclass(frozen=True)
class Sample:
    """``load`` is the load average of the machine's last minute when the measurement began."""

    value: float
    load: float


class Row(TypedDict):
    """One figure as `bin/bench --json` prints it. ``met`` is null where there is no bound, ``load`` the highest of the samples'."""

    figure: str
    unit: str
    runs: int
    min: float | None
    median: float | None
    max: float | None
    bound: float | None
    met: bool | None
    load: float | None
    values: list[float]


@dataclass
class Sheet:
    """The samples of some figures."""

    figures: Sequence[Figure]
    samples: dict[str, list[Sample]] = field(default_factory=dict)

    def add(self, figure: Figure, value: float, load: float) -> None:
        if figure not in self.figures:
            raise ValueError(f"figure {figure.name!r} is not on this sheet")
        self.samples.setdefault(figure.name, []).append(Sample(value, load))

    def rows(self) -> list[Row]:
        return [row(figure, self.samples.get(figure.name, [])) for figure in self.figures]


def row(figure: Figure, samples: Sequence[Sample]) -> Row:
    values = [round(sample.value, 3) for sample in samples]
    return Row(
        figure=figure.name,
        unit=figure.unit,
        runs=len(values),
        min=min(values, default=None),
        median=round(statistics.median(values), 3) if values else None,
        max=max(values, default=None),
        bound=figure.bound,
        met=met(figure, samples),
        load=round(max(sample.load for sample in samples), 1) if samples else None,
        values=values,
    )


def met(figure: Figure, samples: Sequence[Sample]) -> bool | None:
    """Whether every sample is within the bound. What was not measured is not met, bound or none."""
    if not samples:
        return False
    return None if figure.bound is None else all(sample.value <= figure.bound for sample in samples)


def table(rows: Iterable[Row]) -> str:
    """The rows for people, one line each below a heading."""
    lines: list[tuple[str, ...]] = [("figure", "unit", "runs", "min", "median", "max", "bound", "met", "load")]
    lines += [
        (
            row["figure"],
            row["unit"],
            str(row["runs"]),
            *(number(row[name]) for name in ("min", "median", "max", "bound")),
            {True: "yes", False: "NO", None: "-"}[row["met"]],
            number(row["load"]),
        )
        for row in rows
    ]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "".join(
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width) for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        + "\n"
        for line in lines
    )


def number(value: float | None) -> str:
    """`-` for nothing, a whole number as such, up to two decimals otherwise."""
    return "-" if value is None else f"{value:.2f}".rstrip("0").rstrip(".")
