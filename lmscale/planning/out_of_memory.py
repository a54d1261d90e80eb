"""Out of memory: told from other failures; said with the bytes asked, the bytes there, and changes that would fit."""

from __future__ import annotations

import re

from lmscale.config import Study
from lmscale.plan import Trajectory
from lmscale.planning.layout import Placement, advice
from lmscale.planning.memory import FILLED, Memory, in_words
from lmscale.store.full_disk import is_full_disk

# What XLA writes on CPUs ("Out of memory allocating 48 bytes"), on GPUs ("Out of memory while trying to allocate 48
# bytes", "Failed to allocate request for 6.27GiB"), on TPUs ("Used 21.95G of 15.48G hbm", "Attempting to reserve 10.51G
# at the bottom of memory. That was not possible. There are 8.97G free"), and numpy ("Unable to allocate 7.45 GiB")
AMOUNT = r"([\d.]+) ?((?:[KMGT]i?)?B?|bytes)\b"
ASKED = re.compile(rf"(?:allocat(?:e|ing)(?: request for)?|reserve|Used) {AMOUNT}")
THERE = re.compile(rf"(?:There are|of) {AMOUNT} (?:free|hbm)")
POWERS = {"K": 10, "M": 20, "G": 30, "T": 40}


class OutOfMemory(Exception):
    """A trajectory whose step does not fit; the message is the line for a person."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory could not be had: XLA's RESOURCE_EXHAUSTED, or Python's own. (tensorstore
    has the same word for a full disk.)
    """
    return isinstance(error, MemoryError) or ("RESOURCE_EXHAUSTED" in str(error) and not is_full_disk(error))


def amounts(message: str) -> tuple[float | None, float | None]:
    """Bytes asked and bytes there, as far as a message says them."""
    asked, there = ASKED.search(message), THERE.search(message)
    return _bytes(asked), _bytes(there)


def _bytes(match: re.Match[str] | None) -> float | None:
    return None if match is None else float(match[1]) * 2.0 ** POWERS.get(match[2][:1], 0)


def explain(
    error: BaseException,
    trajectory: Trajectory,
    study: Study,
    placement: Placement,
    memory: Memory | None,
    replicas: int = 1,
) -> OutOfMemory:
    """One line about a step that did not fit. The changes it names take less than half of what was tried."""
    asked, there = amounts(str(error))
    there = there or (memory.device_bytes if memory else None)
    layout = f"mesh '{study.mesh}', {placement.microbatches} microbatches, remat = {placement.remat}"
    said = f"{in_words(asked)} asked" if asked else "asked for more than there is"
    line = f"{trajectory.id}: out of memory: {said}"
    if there and memory:
        at_most = min(FILLED * there, placement.bytes.total / 2)
        line += f", {in_words(there)} there ({layout}); {advice(trajectory, study, memory, at_most, replicas)}"
    else:
        line += f" ({layout}); try more microbatches, --remat layer, or --mesh with a larger fsdp axis"
    return OutOfMemory(line)
