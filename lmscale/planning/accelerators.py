"""Accelerators by the name that jax prints (`device_kind`): peak rates and memory, as their makers state. No jax."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from analysis.errors import InputError

GIB, GB, TERA = float(2**30), 1e9, 1e12


@dataclass(frozen=True, kw_only=True)
class Accelerator:
    """One device. Rates are dense (no sparsity).

    `float32_flops` is the rate of what jax multiplies float32 in unless told otherwise: one bfloat16 pass on TPUs, TF32
    tensor cores on NVIDIA from Ampere on. A share of anything slower could exceed 1.
    """

    kinds: tuple[str, ...]
    bfloat16_flops: float  # FLOP/s
    float32_flops: float  # FLOP/s
    memory_bytes: float
    source: str

    def flops(self, dtype: Literal["float32", "bfloat16"]) -> float:
        """Peak FLOP/s of matrix products in `dtype`."""
        return self.bfloat16_flops if dtype == "bfloat16" else self.float32_flops


def _made(kinds: tuple[str, ...], bfloat16: float, float32: float, memory: float, source: str) -> Accelerator:
    """A row of the table: rates in TFLOP/s, memory in bytes."""
    return Accelerator(
        kinds=kinds,
        bfloat16_flops=bfloat16 * TERA,
        float32_flops=float32 * TERA,
        memory_bytes=memory,
        source=source,
    )


# fmt: off
ACCELERATORS = (
    _made(("TPU v4",), 275, 275, 32 * GIB, "cloud.google.com/tpu/docs/v4"),
    _made(("TPU v5 lite", "TPU v5e"), 197, 197, 16 * GB, "cloud.google.com/tpu/docs/v5e"),
    _made(("TPU v5", "TPU v5p"), 459, 459, 95 * GB, "cloud.google.com/tpu/docs/v5p"),
    _made(("TPU v6 lite", "TPU v6e"), 918, 918, 32 * GB, "cloud.google.com/tpu/docs/v6e"),
    _made(("NVIDIA A100-SXM4-40GB", "NVIDIA A100-PCIE-40GB"), 312, 156, 40 * GB, "NVIDIA A100 datasheet, 2020"),
    _made(("NVIDIA A100-SXM4-80GB",), 312, 156, 80 * GB, "NVIDIA A100 80GB datasheet, 2021, column SXM"),
    _made(("NVIDIA A100 80GB PCIe",), 312, 156, 80 * GB, "NVIDIA A100 80GB datasheet, 2021, column PCIe"),
    # the next four state rates with sparsity, which are twice the dense ones
    _made(("NVIDIA H100 80GB HBM3",), 989.5, 494.5, 80 * GB, "NVIDIA H100 datasheet, 2023, column SXM"),
    _made(("NVIDIA H100 PCIe",), 756.5, 378, 80 * GB, "NVIDIA H100 datasheet, 2023, column PCIe"),
    _made(("NVIDIA H200",), 989.5, 494.5, 141 * GB, "NVIDIA H200 datasheet, 2023, column SXM"),
    _made(("NVIDIA L4",), 121, 60, 24 * GB, "NVIDIA L4 datasheet, 2023"),
    # tensor cores of Volta know float16 alone: jax computes bfloat16 in float32
    _made(("Tesla V100-SXM2-16GB",), 15.7, 15.7, 16 * GB, "NVIDIA V100 datasheet, 2020, column SXM2"),
    _made(("Tesla V100-SXM2-32GB",), 15.7, 15.7, 32 * GB, "NVIDIA V100 datasheet, 2020, column SXM2"),
    _made(("Tesla V100-PCIE-16GB",), 14, 14, 16 * GB, "NVIDIA V100 datasheet, 2020, column PCIe"),
    _made(("Tesla V100-PCIE-32GB",), 14, 14, 32 * GB, "NVIDIA V100 datasheet, 2020, column PCIe"),
)
# fmt: on
_BY_KIND = {kind: accelerator for accelerator in ACCELERATORS for kind in accelerator.kinds}


def find(device_kind: str) -> Accelerator | None:
    """The accelerator of which jax says `device_kind`, or None if the table has none of that name."""
    return _BY_KIND.get(device_kind)


def find_named(text: str) -> tuple[str, Accelerator]:
    """The accelerator whose name holds `text`, such as H200, and its name. Raises InputError for none, or several."""
    exact = [kind for kind in _BY_KIND if kind.lower() == text.lower()]
    found = exact or [kind for kind in _BY_KIND if text.lower() in kind.lower()]
    if len({id(_BY_KIND[kind]) for kind in found}) != 1:
        what, names = ("is no accelerator known", _BY_KIND) if not found else ("may be several", found)
        raise InputError(f"device: {text!r} {what}; name one of {', '.join(names)}")
    return found[0], _BY_KIND[found[0]]
