"""What a fit cannot tell, and what a reader must be warned of."""

import numpy as np

from analysis.laws import Array
from analysis.reading.rows import numbers
from analysis.solving.form import Form
from analysis.solving.solve import Solution
from analysis.table import Table
from analysis.uncertainty import Resampling, interval

FEW_RUNS = 30
NEAR = 1e-9  # of a bound: met
SINGULAR = 1e7  # condition of the scaled Jacobian beyond which a combination of parameters moves nothing
MOST_NATS = 13.0  # log of a vocabulary of 440,000: an untrained model's loss is no higher
REPEATED = 1.05  # epochs beyond which text counts as repeated


def bounds_met(form: Form, theta: Array) -> tuple[str, ...]:
    """Which free coordinates ended at a bound."""
    free = form.upper > form.lower
    sides = (("lower", theta <= form.lower + NEAR), ("upper", theta >= form.upper - NEAR))
    return tuple(
        f"{name} at its {side} bound"
        for side, hit in sides
        for name, h in zip(form.names, hit & free, strict=True)
        if h
    )


def told(
    form: Form,
    at_bounds: tuple[str, ...],
    draws: Array | None,
    interval_of_a: tuple[float, float] | None,
    condition: float,
    jacobian: Array,
) -> tuple[bool, str]:
    """Whether the exponents are determined, and why not. jacobian [n, K] has the free coordinates alone."""
    telling = [bound for bound in at_bounds if bound.split()[0] in form.telling]
    if telling:
        return False, f"{', '.join(telling)}: the runs do not determine the exponents"
    if draws is not None:
        low, high = interval(draws)
        for k, name in enumerate(form.names):
            whole = low[k] <= form.lower[k] + NEAR and high[k] >= form.upper[k] - NEAR
            if name in form.free and name in form.telling and whole:
                return False, f"the interval of {name} is the whole range allowed: the runs do not determine it"
    if interval_of_a is not None and not 0 < interval_of_a[0] <= interval_of_a[1] < 1:
        return False, "the interval of a leaves 0 to 1: the runs do not determine how N* grows"
    if not condition <= SINGULAR:
        scaled = jacobian / np.maximum(np.linalg.norm(jacobian, axis=0), 1e-300)
        flat = np.abs(np.linalg.svd(scaled, full_matrices=False)[2][-1])
        traded = [form.free[k] for k in np.argsort(-flat)[:2]]
        if set(traded) & set(form.telling):
            return False, f"{traded[0]} and {traded[1]} trade for each other: the runs do not tell them apart"
    return True, ""


def warnings_of(
    table: Table,
    form: Form,
    found: Solution,
    best: int,
    agreement: float,
    at_bounds: tuple[str, ...],
    draws: Array | None,
    resampling: Resampling,
    reason: str,
) -> tuple[str, ...]:
    """What to show with every answer of a fit."""
    warnings = [f"not identifiable: {reason}"] if reason else []
    warnings += [bound for bound in at_bounds if bound not in reason]
    if not found.converged[best]:
        warnings.append(f"the optimiser stopped with a gradient of {found.gradient[best]:.2g}")
    if agreement < 0.2:
        warnings.append(f"only {agreement:.0%} of the starts reached the best objective")
    if draws is not None:
        for k, name in enumerate(form.names):
            edge = (draws[:, k] <= form.lower[k] + NEAR) | (draws[:, k] >= form.upper[k] - NEAR)
            share = float(np.mean(edge))
            if name in form.free and share >= 0.025:
                warnings.append(f"{share:.0%} of the resamples put {name} at the edge of the range allowed")
    trajectories = int(resampling.trajectory.max()) + 1
    if resampling.kind == "effects" and trajectories < 10:
        warnings.append(f"only {trajectories} trajectories: intervals from so few are approximate")
    if len(table) < FEW_RUNS:
        warnings.append(f"only {len(table)} runs were fitted: take this as a demonstration")
    if "params_embedding" in table.frame:
        share = float(np.max(numbers(table.frame, "params_embedding") / table.params))
        if share > 0.2:  # above it the count of parameters decides the exponent, Pearce & Song 2024, Sec. 3
            warnings.append(f"embeddings are up to {share:.0%} of the parameters: exponents depend on counting them")
    highest = float(table.loss_nats.max())
    if highest > MOST_NATS:
        warnings.append(f"losses up to {highest:.3g}: nats per token are expected; are these perplexities or bits?")
    if table.unique_tokens is not None and not form.fits.models_repeats:
        again = int(np.sum(table.tokens > REPEATED * table.unique_tokens))
        if again:
            warnings.append(f"{again} runs repeat text, which this law counts as new; --law repeats does not")
    return tuple(warnings)
