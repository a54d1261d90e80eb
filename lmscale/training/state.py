"""What training goes on from, and what of it a step changes."""

from __future__ import annotations

from typing import Any, NamedTuple

from lmscale.network.lora import joined, part_of
from lmscale.network.parts import Tuning


class State(NamedTuple):
    """Everything a checkpoint holds: parameters and optimiser state (float32), sharded by the rule table."""

    params: Any
    optimizer: Any


class TunedState(NamedTuple):
    """The same of a model of which not everything is trained: the parameters without what adapters add to them, the
    optimiser state of what is trained alone, and the adapters.
    """

    params: Any
    optimizer: Any
    adapters: Any


AnyState = State | TunedState


def trained_of(state: AnyState, tuning: Tuning | None) -> Any:
    """What is trained of a state: its parameters; where not all are, those of them that are, and the adapters."""
    if isinstance(state, State):
        return state.params
    assert tuning is not None
    return {"own": part_of(state.params, set(tuning.trained)), "adapters": state.adapters}


def with_trained(state: AnyState, trained: Any, optimizer: Any) -> AnyState:
    """A state after a step, which changed what is trained of it."""
    if isinstance(state, State):
        return State(trained, optimizer)
    return TunedState(joined(state.params, trained["own"]), optimizer, trained["adapters"])
