"""What is believed of a law before its runs are trained: constants, a published law, or the fit of another table.

A prior is uncertain, and a design that is best for one law may be poor for its neighbour; what is planned on a prior
is therefore averaged over laws drawn from it (Chaloner & Verdinelli 1995).
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, cast

import numpy as np

from analysis.errors import InputError
from analysis.fit import Fit
from analysis.laws import Array, Chinchilla, EqualExponent, Law
from analysis.rivals import Kaplan
from analysis.solving.form import Form, Runs
from analysis.solving.forms import form_of
from analysis.solving.sandwich import Noise
from analysis.uncertainty import Resampling, residual_sd

SPREAD = 0.1  # relative, of constants that carry no intervals: published exponents differ so from corpus to corpus
RUN_NOISE = 0.005  # sd of log L where no table tells it; the quickstart's median absolute residual is 0.49 %
SHARED = 0.5  # of its variance within a trajectory, where no table tells it; as analysis.coverage simulates
LEAST_NOISE = 1e-5
INSIDE = 1e-3  # of the width of the box: how far from its edge a law that is drawn stays

PUBLISHED: Mapping[str, Law] = {
    "besiroglu": Chinchilla(A=482.01, B=2085.43, L0=1.8172, alpha=0.3478, beta=0.3658),  # 2024 (2404.10102), Table 1
    "hoffmann": Chinchilla(A=406.4, B=410.7, L0=1.69, alpha=0.34, beta=0.28),  # 2022 (2203.15556), eq. 10
    "muennighoff": EqualExponent(  # 2023 (2305.16264), App. A, where no token is repeated
        A=np.exp(6.255414), B=np.exp(7.3049974), L0=np.exp(0.6254804), alpha=0.3526596
    ),
    "kaplan": Kaplan(N_c=6.4e13, D_c=1.8e13, alpha=0.076, beta=0.103),  # 2020 (2001.08361), Table 2; no embeddings in N
}


@dataclass(frozen=True, kw_only=True)
class Prior:
    """law: the best guess. samples: laws as likely as it, [R, 1], or None, where `spread` says how far others lie from
    it (relative, of exponents and of the terms at the middle of the runs). noise: of log L. source: in words.
    """

    law: Law
    samples: Law | None = None
    spread: float = 0.0
    noise: Noise
    source: str

    def laws(self, form: Form, count: int, rng: np.random.Generator) -> Array:
        """Coordinates [count, K] of laws drawn, inside the form's box."""
        middle = form.theta(self.law)
        if self.samples is not None:
            size = len(np.asarray(next(iter(self.samples.parameters.values()))))
            rows = rng.permutation(size)[np.arange(count) % size]
            drawn = np.array([form.theta(_one(self.samples, int(row))) for row in rows])
        else:
            scale = np.where([name in form.logs for name in form.names], 1.0, np.abs(middle))
            drawn = middle + self.spread * scale * rng.normal(size=(count, len(middle)))
        room = INSIDE * (form.upper - form.lower)
        return np.clip(drawn, form.lower + room, form.upper - room)


def published(name: str, noise: Noise, spread: float = SPREAD) -> Prior:
    """A law of PUBLISHED. Raises InputError for another name."""
    if name not in PUBLISHED:
        raise InputError(
            f"prior: {name!r} is unknown; name one of {', '.join(PUBLISHED)}, give constants such as L0=1.8 A=480 "
            "B=2100 alpha=0.35 beta=0.37, or a table of runs"
        )
    return Prior(law=PUBLISHED[name], spread=spread, noise=noise, source=f"the law of {name}")


def constants(values: Mapping[str, float], noise: Noise, *, law: str = "chinchilla", spread: float = SPREAD) -> Prior:
    """A law by its parameters. Raises InputError for an unknown law, and one that is missing or not its own."""
    kind = form_of(law).fits
    names = tuple(field.name for field in fields(cast(Any, kind)))
    wrong = sorted({*values} ^ {*names})
    if wrong:
        raise InputError(f"prior: {wrong[0]} is {'missing' if wrong[0] in names else 'no parameter of this law'}; give "
                         f"{', '.join(names)} of {law}")  # fmt: skip
    return Prior(law=kind(**values), spread=spread, noise=noise, source="the constants given")


def fitted(fit: Fit, *, source: str) -> Prior:
    """The law of a fit, its resamples and the errors of its runs.

    Raises InputError where the runs do not determine the exponents.
    """
    if not fit.identifiable:
        raise InputError(f"prior: {source} tells no law ({fit.reason}); take a published one such as besiroglu")
    runs, free = fit.form, len(fit.form.free)
    jacobian = fit.form.model(_runs(fit)).jacobian(runs.theta(fit.law))[1][:, runs.upper > runs.lower]
    resampling = Resampling.of(fit.table.params, fit.table.trajectory, clustered=fit.table.clustered)
    noise = Noise(sd=max(residual_sd(fit.residuals, free), LEAST_NOISE))
    if resampling.kind in ("effects", "trajectories"):
        shared, own = resampling.variances(fit.residuals, jacobian, count=400, rng=np.random.default_rng(fit.seed))
        total = float(np.median(shared + own))
        if total > 0:
            noise = Noise(sd=max(total**0.5, LEAST_NOISE), shared=float(np.median(shared / (shared + own))))
    return Prior(law=fit.law, samples=fit.samples, noise=noise, source=f"the fit of {source}")


def with_noise(prior: Prior, *, sd: float | None, shared: float | None) -> Prior:
    """The same with errors as given, where they are."""
    noise = Noise(sd=prior.noise.sd if sd is None else sd, shared=prior.noise.shared if shared is None else shared)
    return replace(prior, noise=noise)


def _one(samples: Law, row: int) -> Law:
    kind: Any = type(samples)
    parameters = {name: np.asarray(values) for name, values in samples.parameters.items()}
    return kind(**{name: float(v[row, 0] if v.ndim == 2 else v) for name, v in parameters.items()})


def _runs(fit: Fit) -> Runs:
    table = fit.table
    return Runs(params=table.params, tokens=table.tokens, loss_nats=table.loss_nats, unique_tokens=table.unique_tokens)
