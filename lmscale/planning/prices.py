"""What an hour of an accelerator costs, and what it draws: a small table, and a user's file that extends it. No jax.

The file is TOML, a table a device:

    ["NVIDIA H100 80GB HBM3"]      # of this table, or any name with a bfloat16_tflops
    dollars_per_hour = 2.10
    watts = 700
    bfloat16_tflops = 989.5
    source = "our contract of 2026"
"""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path

from analysis.errors import InputError
from lmscale.planning.accelerators import ACCELERATORS, TERA, find_named

KEYS = ("bfloat16_tflops", "dollars_per_hour", "watts", "source")
LISTED = "on demand, by a listing of others' prices:"
UNCHECKED = "of Google Cloud in the US, 2025, unchecked: give yours with --accelerators"
SHEET = "its maker's data sheet (board power)"


@dataclass(frozen=True, kw_only=True)
class Priced:
    """One device: peak bfloat16 FLOP/s, dollars an hour and watts, None where they are not known; and who says so."""

    name: str
    kinds: tuple[str, ...]  # by which jax knows it
    bfloat16_flops: float
    dollars_per_hour: float | None
    watts: float | None
    price_source: str
    watts_source: str


# dollars an hour, who lists them, watts, who states them
# fmt: off
_TABLE: dict[str, tuple[float | None, str, float | None, str]] = {
    "TPU v4": (3.22, UNCHECKED, 192, "the most that Jouppi et al. 2023 state"),
    "TPU v5 lite": (1.20, UNCHECKED, None, ""),
    "TPU v5": (4.20, UNCHECKED, None, ""),
    "TPU v6 lite": (2.70, UNCHECKED, None, ""),
    "NVIDIA A100-SXM4-40GB": (1.48, f"{LISTED} Lambda, May 2026", 400, SHEET),
    "NVIDIA A100-PCIE-40GB": (1.48, f"{LISTED} Lambda, May 2026", 250, SHEET),
    "NVIDIA A100-SXM4-80GB": (2.4984, f"{LISTED} Modal, May 2026", 400, SHEET),
    "NVIDIA A100 80GB PCIe": (2.4984, f"{LISTED} Modal, May 2026", 300, SHEET),
    "NVIDIA H100 80GB HBM3": (3.78, f"{LISTED} Lambda, May 2026", 700, SHEET),
    "NVIDIA H100 PCIe": (2.86, f"{LISTED} Lambda, May 2026", 350, SHEET),
    "NVIDIA H200": (None, "", 700, SHEET),
    "NVIDIA L4": (0.7992, f"{LISTED} Modal, May 2026", 72, SHEET),
    "Tesla V100-SXM2-16GB": (None, "", 300, SHEET),
    "Tesla V100-SXM2-32GB": (None, "", 300, SHEET),
    "Tesla V100-PCIE-16GB": (None, "", 250, SHEET),
    "Tesla V100-PCIE-32GB": (None, "", 250, SHEET),
}
# fmt: on


def priced() -> dict[str, Priced]:
    """The devices of lmscale.planning.accelerators by all their names; what one name does not tell, the first does."""
    devices = {}
    for accelerator in ACCELERATORS:
        for name in accelerator.kinds:
            dollars, lister, watts, sheet = _TABLE.get(name, _TABLE[accelerator.kinds[0]])
            devices[name] = Priced(
                name=name,
                kinds=accelerator.kinds,
                bfloat16_flops=accelerator.bfloat16_flops,
                dollars_per_hour=dollars,
                watts=None if watts is None else float(watts),
                price_source=lister,
                watts_source=sheet,
            )
    return devices


def price_of(name: str, file: Path | None = None) -> Priced:
    """The device of a user's file, or of the table, whose name is or holds `name`.

    Raises InputError for a name that is none or several, and for a file that cannot be read or holds something else.
    """
    own = {} if file is None else read_prices(file)
    exact = [device for key, device in own.items() if key.lower() == name.lower()]
    found = exact or [device for key, device in own.items() if name.lower() in key.lower()]
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(f"device: {name!r} may be several of {str(file)!r}; name one of {', '.join(own)}")
    try:
        kind, _ = find_named(name)
    except InputError as error:
        raise InputError(f"{error}; or describe it in a file and give that with --accelerators FILE") from None
    return priced()[kind]


def read_prices(file: Path) -> dict[str, Priced]:
    """The devices of a user's file, each completed from the table where that has one of its name."""
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"accelerators: {str(file)!r} cannot be read ({why}); give a TOML file") from None
    known, devices = priced(), {}
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise InputError(f'accelerators: {name!r} is no table; write ["{name}"] and its numbers below')
        for key in table:
            if key not in KEYS:
                raise InputError(f"accelerators: {name}: {key!r} is unknown; it takes {', '.join(KEYS)}")
        source = str(table.get("source", file.name))
        numbers = {key: _number(name, key, table[key]) for key in KEYS[:3] if key in table}
        if name not in known and "bfloat16_tflops" not in numbers:
            raise InputError(f"accelerators: {name!r} is not in the table; give its bfloat16_tflops")
        device, changes = known.get(name) or _blank(name), {}
        if "bfloat16_tflops" in numbers:
            changes["bfloat16_flops"] = numbers["bfloat16_tflops"] * TERA
        if "dollars_per_hour" in numbers:
            changes |= {"dollars_per_hour": numbers["dollars_per_hour"], "price_source": source}
        if "watts" in numbers:
            changes |= {"watts": numbers["watts"], "watts_source": source}
        devices[name] = replace(device, **changes)
    return devices


def _blank(name: str) -> Priced:
    return Priced(
        name=name,
        kinds=(name,),
        bfloat16_flops=0.0,
        dollars_per_hour=None,
        watts=None,
        price_source="",
        watts_source="",
    )


def _number(name: str, key: str, value: object) -> float:
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0
    if not good:
        raise InputError(f"accelerators: {name}: {key} = {value!r} is not a positive number; give one")
    assert isinstance(value, int | float)
    return float(value)
