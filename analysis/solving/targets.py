"""What is asked of a law at a budget, as a function of the coordinates in which it is fitted."""

from collections.abc import Mapping
from typing import Literal

import numpy as np

from analysis.errors import InputError
from analysis.laws import Array, Law
from analysis.solving.form import Form

Target = Literal["params", "loss"]  # N* and the loss at N*, of the budget
LOGARITHMS = ("N*", "D*", "loss")  # of these the standard error is that of the logarithm: relative
STEP = 1e-5  # of the central differences, in coordinates of order one
LEAST_PARAMS, MOST_PARAMS = 1.0, 1e18  # N* and D* beyond which an optimum is none


def quantities(law: Law, flops: float) -> dict[str, Array]:
    """By name: exponents and L0 as they are, N*, D* and the loss at N* as logarithms; each [R, 1] or a number."""
    best = law.optimum(flops)
    own = {name: value for name, value in law.parameters.items() if name in ("alpha", "beta", "L0")}
    named = {**own, "a": law.exponents["a"]}
    named |= {"N*": np.log(best.params), "D*": np.log(best.tokens), "loss": np.log(best.loss_nats)}
    return {name: np.asarray(value, np.float64) for name, value in named.items()}


def slopes(form: Form, theta: Array, flops: float) -> Mapping[str, Array]:
    """Derivatives of every quantity in the coordinates, [R, K], at theta [R, K]."""
    count, size = theta.shape
    steps = STEP * np.concatenate([np.eye(size), -np.eye(size)])
    moved = (theta[:, None] + steps).reshape(-1, size)
    found = quantities(form.law(moved), flops)
    sides = {name: value.reshape(count, 2, size) for name, value in found.items()}
    return {name: (value[:, 0] - value[:, 1]) / (2 * STEP) for name, value in sides.items()}


def require_interior(law: Law, flops: float) -> None:
    """Raise InputError unless the law has an optimum between one parameter and one token at this budget."""
    best = law.optimum(flops)
    params, tokens = float(best.params), float(best.tokens)
    if LEAST_PARAMS <= params <= MOST_PARAMS and LEAST_PARAMS <= tokens <= MOST_PARAMS:
        return
    side = "smallest" if params < tokens else "largest"
    raise InputError(
        f"prior: this law has no interior optimum at {flops:.3g} FLOPs: the {side} model is always the best; give "
        "another law or budget"
    )
