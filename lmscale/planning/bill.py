"""Device-hours, money and energy of a training run, from its FLOPs and the share of a device's peak that it reaches."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lmscale.planning.estimate import UTILISATION
from lmscale.planning.prices import Priced

if TYPE_CHECKING:
    from analysis.table import Table

SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True, kw_only=True)
class Share:
    """The share of peak that steps reach, and how it is known."""

    value: float
    source: str


@dataclass(frozen=True, kw_only=True)
class Bill:
    """What `flops` cost on `device`: hours of one device, dollars and kilowatt-hours of the devices alone.

    dollars, kwh: None where the price or the power is not known.
    """

    device: str
    flops: float
    share: float
    device_hours: float
    dollars: float | None
    kwh: float | None


def bill(flops: float, device: Priced, share: Share) -> Bill:
    hours = flops / (device.bfloat16_flops * share.value) / SECONDS_PER_HOUR
    return Bill(
        device=device.name,
        flops=flops,
        share=share.value,
        device_hours=hours,
        dollars=None if device.dollars_per_hour is None else hours * device.dollars_per_hour,
        kwh=None if device.watts is None else hours * device.watts / 1000.0,
    )


def share_of(table: Table, device: Priced, given: float | None) -> Share:
    """The share given, or measured on runs of the table that were trained on this device, or else a usual one."""
    if given is not None:
        return Share(value=given, source="as given")
    measured = _measured(table, device)
    if measured is not None:
        return Share(value=measured, source="as the largest run here measured")
    return Share(value=UTILISATION, source="taken: Chowdhery et al. 2022, Table 3, has 0.21 to 0.46 (--utilisation)")


def _measured(table: Table, device: Priced) -> float | None:
    """FLOPs of a step over what the peak does in its time, of the largest run on this device: small ones reach less."""
    import numpy as np

    from analysis.reading.rows import numbers, texts

    needed = ("device", "step_seconds", "batch_tokens", "flops", "mesh")
    if any(name not in table.frame for name in needed):
        return None
    kinds = [text.partition(":")[2] or text for text in texts(table.frame, "device")]
    here = np.array([kind in device.kinds for kind in kinds], bool)
    seconds, batch, flops = (numbers(table.frame, name) for name in needed[1:4])
    good = here & np.isfinite(seconds) & (seconds > 0) & np.isfinite(batch)
    if not good.any():
        return None
    devices = np.array(
        [math.prod(int(n) for n in text.split(",") if n.isdecimal()) for text in texts(table.frame, "mesh")]
    )
    share = flops / table.tokens * batch / seconds / (device.bfloat16_flops * devices)
    largest = int(np.argmax(np.where(good, table.params, -np.inf)))
    return float(share[largest]) if 0 < share[largest] <= 1 else None


def bill_cells(found: Bill) -> dict[str, str]:
    """The rows of a decision's table."""
    cells = {"device-hours": _short(found.device_hours)}
    cells["cost"] = "price unknown" if found.dollars is None else f"${_short(found.dollars)}"
    cells["energy"] = "power unknown" if found.kwh is None else f"{_short(found.kwh)} kWh"
    return cells


def bill_note(device: Priced, share: Share, counted: str) -> str:
    """One line: the device, its share of peak, price and power, and which FLOPs are billed."""
    price = (
        "price unknown"
        if device.dollars_per_hour is None
        else f"${device.dollars_per_hour:g} an hour, {device.price_source}"
    )
    power = "power unknown" if device.watts is None else f"{device.watts:g} W, {device.watts_source}"
    return (
        f"{device.name}: {device.bfloat16_flops / 1e12:g} TFLOP/s (bfloat16), {share.value:.0%} of it {share.source}; "
        f"{price}; {power}; devices alone, {counted}."
    )


def _short(value: float) -> str:
    from analysis.words.summary import quantity

    return quantity(value, 2) if value >= 1 else f"{value:.2g}"
