"""Slices of Cloud TPU: their names, chips and rates, as their maker states. No framework."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Self

from lmscale.planning.accelerators import GB, Accelerator, find
from lmscale.study.hardware import DEVICES_MAX
from lmscale.study.typed import check

NAME = re.compile(r"(v\d\w*):(\d+(?:x\d+){1,2})")


@dataclass(frozen=True, kw_only=True)
class Generation:
    """Chips of one generation. The rates of links are one way: half of those called bidirectional."""

    name: str
    kind: str  # as jax prints it
    hbm_bytes_per_second: float
    ici_bytes_per_second: float  # of all links of a chip to its neighbours in the slice
    dcn_bytes_per_second: float  # of a chip's share of its host's data-centre network
    slices: tuple[str, ...]  # those of one to some thousand chips, smallest first
    source: str

    @property
    def accelerator(self) -> Accelerator:
        found = find(self.kind)
        assert found is not None
        return found


FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
CUBES = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16", "8x16x16", "16x16x16")
_DOCS = "cloud.google.com/tpu/docs/"


def _made(name: str, kind: str, hbm: float, ici: float, dcn: float, slices: tuple[str, ...], source: str) -> Generation:
    """A row of the table: rates in GB/s."""
    return Generation(
        name=name,
        kind=kind,
        hbm_bytes_per_second=hbm * GB,
        ici_bytes_per_second=ici * GB,
        dcn_bytes_per_second=dcn * GB,
        slices=slices,
        source=source,
    )


# fmt: off
GENERATIONS = (
    # links: 6 of 50 GB/s, Jouppi et al. 2023 (arXiv:2304.01433), Table 4; network: Austin et al. 2025, How to Scale
    # Your Model, Part 2
    _made("v4", "TPU v4", 1200, 300, 6.25, CUBES, _DOCS + "v4"),
    _made("v5e", "TPU v5 lite", 819, 200, 3.125, FLAT, _DOCS + "v5e (network: 6.4 Tbit/s a pod of 256)"),
    _made("v5p", "TPU v5", 2765, 600, 6.25, CUBES, _DOCS + "v5p"),
    _made("v6e", "TPU v6 lite", 1638, 400, 12.5, FLAT, _DOCS + "v6e (network: 25.6 Tbit/s a pod of 256)"),
)
# fmt: on
BY_NAME = {generation.name: generation for generation in GENERATIONS}


@dataclass(frozen=True, kw_only=True)
class Slices:
    """One slice, such as v5e:4x4, or several of the same joined by the data-centre network."""

    generation: Generation
    extent: tuple[int, ...]  # chips along x, y and, where there is one, z
    count: int = 1

    @classmethod
    def from_text(cls, text: str, count: int = 1) -> Self:
        """Raises InputError for a generation or an extent that is not known."""
        match = NAME.fullmatch(text)
        such_as = f"name a generation ({', '.join(BY_NAME)}) and its chips, such as v5e:4x4 or v5p:8x8x16"
        check(match is not None, "topology", text, f"is no slice; {such_as}")
        assert match is not None
        check(match[1] in BY_NAME, "topology", text, f"is of no generation that is known; {such_as}")
        generation = BY_NAME[match[1]]
        extent = tuple(int(number) for number in match[2].split("x"))
        like = generation.slices[3]
        check(
            len(extent) == like.count("x") + 1 and min(extent) >= 1,
            "topology",
            text,
            f"has not the dimensions of {generation.name}; choose one like {generation.name}:{like}",
        )
        check(count >= 1, "slices", count, "must be at least 1")
        chips = math.prod(extent) * count
        check(chips <= DEVICES_MAX, "topology", text, f"takes {chips:,} chips, more than {DEVICES_MAX:,}; take fewer")
        return cls(generation=generation, extent=extent, count=count)

    @property
    def topology(self) -> str:
        return f"{self.generation.name}:{'x'.join(map(str, self.extent))}"

    @property
    def chips_each(self) -> int:
        return math.prod(self.extent)

    @property
    def chips(self) -> int:
        return self.count * self.chips_each

    @property
    def larger(self) -> list[Self]:
        """The slices of the table that have more chips than one of these, as many of each, smallest first."""
        every = [type(self).from_text(f"{self.generation.name}:{name}", self.count) for name in self.generation.slices]
        return [s for s in every if s.chips_each > self.chips_each]

    def __str__(self) -> str:
        return self.topology if self.count == 1 else f"{self.count} x {self.topology}"
