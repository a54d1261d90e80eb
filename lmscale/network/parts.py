"""The parameters of every family by name, and which of them are trained. No framework.

Alphabet as in layers.py: V vocabulary, D width, L layers, H heads, K head size, F feed-forward.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from analysis.errors import InputError
from lmscale.config import Family
from lmscale.shapes import Shape
from lmscale.study.starts import Lora, Matrix, Start
from lmscale.study.typed import check

Shapes = dict[str, tuple[int, ...]]  # by name, such as layers/attention/inward
GATES = ("f", "g", "i", "o")  # of an LSTM
FUSED: dict[str, tuple[Matrix, ...]] = {"attention": ("query", "key", "value"), "cross_attention": ("key", "value")}
LAST = ("weight", "scale", "kernel", "bias")  # what a parameter is called in a module that has one


def parameters(family: Family, shape: Shape) -> Shapes:
    """Every parameter of a model, with its shape; those of layers are stacked. Raises KeyError for a family that keeps
    something else (an n-gram's counts).
    """
    v, d, depth = shape.vocab, shape.width, shape.depth
    found: Shapes = {"embedding": (v, d), "final_norm/scale": (d,)}
    if not shape.tied:
        found["head"] = (v, d)
    if shape.positions:
        found["position_embedding"] = (shape.positions, d)
    layers = {
        "decoder": {"layers": _transformer(shape, crossed=False)},
        "encoder": {"layers": _transformer(shape, crossed=False)},
        "encoder_decoder": {
            "encoder_layers": _transformer(shape, crossed=False),
            "layers": _transformer(shape, crossed=True),
        },
        "lstm": {"layers": _recurrent(d)},
    }[family]
    if family == "encoder_decoder":
        found["encoder_norm/scale"] = (d,)
    for stack, names in layers.items():
        found |= {f"{stack}/{name}": (depth, *dimensions) for name, dimensions in names.items()}
    return found


def _transformer(shape: Shape, *, crossed: bool) -> Shapes:
    d, h, k, f = shape.width, shape.heads, shape.head_size, shape.feedforward
    found: Shapes = {
        "attention_norm/scale": (d,),
        "attention/inward": (d, h, 3, k),
        "attention/out/weight": (h, k, d),
        "feedforward_norm/scale": (d,),
        "feedforward/up/weight": (d, f),
        "feedforward/down/weight": (f, d),
    }
    if crossed:
        found |= {
            "cross_attention_norm/scale": (d,),
            "cross_attention/query/weight": (d, h, k),
            "cross_attention/inward": (d, h, 2, k),
            "cross_attention/out/weight": (h, k, d),
        }
    return found


def _recurrent(d: int) -> Shapes:
    cell = {f"i{gate}/kernel": (d, d) for gate in GATES}
    cell |= {f"h{gate}/kernel": (d, d) for gate in GATES} | {f"h{gate}/bias": (d,) for gate in GATES}
    return {"recurrence_norm/scale": (d,), **{f"recurrence/cell/{name}": of for name, of in cell.items()}}


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """A low-rank addition to one matrix of every layer of a stack: a [L, inputs, r] times b [L, r, outputs]."""

    name: str  # such as layers/attention/query
    weight: str  # the parameter that it is added to
    place: int | None  # of the matrix among those of a fused weight
    layers: int
    inputs: int
    outputs: int

    def params(self, rank: int) -> int:
        return self.layers * rank * (self.inputs + self.outputs)


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """What of a model is trained: its own parameters by name, and adapters."""

    trained: tuple[str, ...]
    adapters: tuple[Adapter, ...] = ()
    rank: int = 0
    scale: float = 0.0  # of what the adapters add
    params_own: int  # of those in `trained`

    @property
    def params_added(self) -> int:
        """L r (inputs + outputs) for each matrix that is adapted."""
        return sum(adapter.params(self.rank) for adapter in self.adapters)

    @property
    def params_trained(self) -> int:
        return self.params_own + self.params_added


def tuning_of(start: Start, family: Family, shape: Shape) -> Tuning | None:
    """What is trained of a model that begins as `start` says; None where it is all of it, without adapters.

    Raises InputError for an unknown part, for LoRA where it cannot be, and where nothing would be trained.
    """
    if family not in ("decoder", "encoder", "encoder_decoder", "lstm"):
        raise InputError(f"start.run: {start.run!r} gives parameters, and family {family!r} has none; leave start out")
    shapes = parameters(family, shape)
    adapters = () if start.lora is None else _adapters(start.lora, shapes)
    adapted = {adapter.weight for adapter in adapters}
    frozen = set(shapes) if start.freeze is None and adapters else _frozen(start.freeze or (), shapes)
    trained = tuple(sorted(set(shapes) - frozen - adapted))
    check(
        bool(trained or adapters), "start.freeze", start.freeze, "leaves nothing to train; leave out one of these parts"
    )
    if len(trained) == len(shapes):
        return None
    lora = start.lora
    return Tuning(
        trained=trained,
        adapters=adapters,
        rank=lora.rank if lora else 0,
        scale=lora.alpha / lora.rank if lora else 0.0,
        params_own=sum(math.prod(shapes[name]) for name in trained),
    )


def told(tuning: Tuning | None) -> dict:
    """What is trained of a model, as identities tell it."""
    if tuning is None:
        return {"trained": "all"}
    adapters = {"adapters": [a.name for a in tuning.adapters], "rank": tuning.rank, "scale": tuning.scale}
    return {"trained": tuning.trained, **(adapters if tuning.adapters else {})}


def part_names(shapes: Shapes) -> list[str]:
    """Every part that can be frozen: each parameter, and each module that holds some."""
    found = set()
    for name in shapes:
        words = name.split("/")
        words = words[:-1] if words[-1] in LAST else words
        found |= {"/".join(words[:count]) for count in range(1, len(words) + 1)}
    return sorted(found)


def _frozen(parts: tuple[str, ...], shapes: Shapes) -> set[str]:
    known = part_names(shapes)
    for part in parts:
        check(part in known, "start.freeze", part, f"is no part of this model; name some of {', '.join(known)}")
    return {name for name in shapes if any(name == part or name.startswith(f"{part}/") for part in parts)}


def _adapters(lora: Lora, shapes: Shapes) -> tuple[Adapter, ...]:
    found = [adapter for name in sorted(shapes) for adapter in _of_weight(name, shapes[name])]
    check(
        bool(found),
        "start.lora.matrices",
        lora.matrices,
        "are those of attention and feed-forward layers, and an LSTM has none; leave start.lora out",
    )
    found = [adapter for adapter in found if adapter.name.rpartition("/")[2] in lora.matrices]
    for adapter in found:
        least = min(adapter.inputs, adapter.outputs)
        check(
            lora.rank <= least,
            "start.lora.rank",
            lora.rank,
            f"exceeds the rank of {adapter.name}, a matrix of {adapter.inputs} x {adapter.outputs}; give at most "
            f"{least}",
        )
    return tuple(found)


def _of_weight(name: str, shape: tuple[int, ...]) -> list[Adapter]:
    """The adapters that a parameter can have."""
    *stack, last = name.split("/")
    module = stack.pop() if stack else ""
    if last == "inward":  # [L, D, H, matrices, K]
        layers, d, h, _, k = shape
        return [
            Adapter(name="/".join([*stack, module, what]), weight=name, place=i, layers=layers, inputs=d, outputs=h * k)
            for i, what in enumerate(FUSED[module])
        ]
    if last != "weight":
        return []
    inputs = 2 if module == "out" else 1  # dimensions: heads and their size
    return [
        Adapter(
            name="/".join([*stack, module]),
            weight=name,
            place=None,
            layers=shape[0],
            inputs=math.prod(shape[1 : 1 + inputs]),
            outputs=math.prod(shape[1 + inputs :]),
        )
    ]
