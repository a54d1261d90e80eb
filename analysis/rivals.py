"""The rivals of Chinchilla's law: coupled terms, Kaplan's form, an interaction of N and D, repeated text, a broken law.

As in laws.py, parameters may be numbers or arrays [R, 1] with one value per resample.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from analysis.errors import InputError
from analysis.laws import FLOPS_PER_PARAM_TOKEN, MOST_LOG, Array, Chinchilla, Law, Optimum, budgets, logs, split
from analysis.solving.golden import minimum


@dataclass(frozen=True, kw_only=True)
class Coupled(Law):
    """L(N, D) = (A^(1/gamma) / N^(alpha/gamma) + B^(1/gamma) / D^(beta/gamma))^gamma + L0.

    alpha and beta are the exponents of N alone and D alone; gamma couples the two terms. gamma = 1 is Hoffmann et al.
    2022, eq. 2; L0 = 0 with gamma = beta is Kaplan et al. 2020, eq. 1.5.
    Raises InputError for a parameter that is not finite and positive (L0 may be zero).
    """

    L0: Any
    A: Any
    B: Any
    alpha: Any
    beta: Any
    gamma: Any

    name: ClassVar[str] = "coupled"
    description: ClassVar[str] = (
        "L(N, D) = (A^(1/gamma)/N^(alpha/gamma) + B^(1/gamma)/D^(beta/gamma))^gamma + L0; "
        "between Hoffmann et al. 2022, eq. 2 (gamma = 1) and Kaplan et al. 2020, eq. 1.5 (gamma = beta, L0 = 0)"
    )

    def predict(self, params: ArrayLike, tokens: ArrayLike, unique_tokens: ArrayLike | None = None) -> Array:
        log_n, log_d = logs(params, tokens)
        n_term, d_term = np.log(self.A) - self.alpha * log_n, np.log(self.B) - self.beta * log_d
        return np.exp(self.gamma * np.logaddexp(n_term / self.gamma, d_term / self.gamma)) + self.L0

    def optimum(self, flops: ArrayLike, unique_tokens: ArrayLike | None = None) -> Optimum:
        """The closed form of Chinchilla's law inside the bracket, whose minimum the outer power keeps."""
        flops = budgets(flops)
        log_g = np.log(self.alpha / self.beta) + (np.log(self.A) - np.log(self.B)) / self.gamma
        total = (self.alpha + self.beta) / self.gamma
        log_product = np.log(flops / FLOPS_PER_PARAM_TOKEN)
        return split(self, flops, (log_g + self.beta / self.gamma * log_product) / total)


@dataclass(frozen=True, kw_only=True)
class Kaplan(Law):
    """L(N, D) = ((N_c / N)^(alpha/beta) + D_c / D)^beta, alpha and beta being Kaplan's alpha_N and alpha_D.

    Raises InputError for a parameter that is not finite and positive.
    """

    N_c: Any
    D_c: Any
    alpha: Any
    beta: Any

    name: ClassVar[str] = "kaplan"
    description: ClassVar[str] = (
        "L(N, D) = ((N_c/N)^(alpha/beta) + D_c/D)^beta; Kaplan et al. 2020 (arXiv:2001.08361), eq. 1.5; no L0"
    )

    @property
    def _coupled(self) -> Coupled:
        return Coupled(
            A=np.exp(self.alpha * np.log(self.N_c)),
            B=np.exp(self.beta * np.log(self.D_c)),
            L0=0.0,
            alpha=self.alpha,
            beta=self.beta,
            gamma=self.beta,
        )

    def predict(self, params: ArrayLike, tokens: ArrayLike, unique_tokens: ArrayLike | None = None) -> Array:
        return self._coupled.predict(params, tokens)

    def optimum(self, flops: ArrayLike, unique_tokens: ArrayLike | None = None) -> Optimum:
        """The minimum of eq. 1.5 itself at C = 6 N D; Kaplan's own optimum stops training early (his eq. 1.7, 1.8)."""
        return self._coupled.optimum(flops)


@dataclass(frozen=True, kw_only=True)
class Interaction(Law):
    """L(N, D) = A / N^alpha + B / (D^beta N^kappa) + L0: what a token teaches depends on the size of the model.

    kappa > 0: larger models learn more from the same text. kappa = 0 is Chinchilla's law. The first order, in log N, of
    the law of Li et al. 2025 (Farseer), where coefficient and exponent of D are functions of N.
    Raises InputError for a parameter that is not finite and positive (L0 may be zero, kappa may have either sign).
    """

    L0: Any
    A: Any
    B: Any
    alpha: Any
    beta: Any
    kappa: Any

    name: ClassVar[str] = "interaction"
    signed: ClassVar[tuple[str, ...]] = ("kappa",)
    description: ClassVar[str] = (
        "L(N, D) = A/N^alpha + B/(D^beta N^kappa) + L0; Chinchilla's law with a data term that depends on N, "
        "after Li et al. 2025 (Farseer, arXiv:2506.10972)"
    )

    @property
    def exponents(self) -> dict[str, Any]:
        total = self.alpha + self.beta - self.kappa
        return {"a": self.beta / total, "b": (self.alpha - self.kappa) / total}

    def predict(self, params: ArrayLike, tokens: ArrayLike, unique_tokens: ArrayLike | None = None) -> Array:
        log_n, log_d = logs(params, tokens)
        n_term = np.exp(np.log(self.A) - self.alpha * log_n)
        return n_term + np.exp(np.log(self.B) - self.beta * log_d - self.kappa * log_n) + self.L0

    def optimum(self, flops: ArrayLike, unique_tokens: ArrayLike | None = None) -> Optimum:
        """N* = (alpha A / ((beta - kappa) B))^(1/t) (C/6)^(beta/t), t = alpha + beta - kappa.

        With kappa >= beta a larger model is always better; N* is then e^300, "no idea".
        """
        flops = budgets(flops)
        slope = np.maximum(np.asarray(self.beta - self.kappa, np.float64), np.exp(-MOST_LOG))
        log_g = np.log(self.alpha * self.A) - np.log(slope) - np.log(self.B)
        log_product = np.log(flops / FLOPS_PER_PARAM_TOKEN)
        return split(self, flops, (log_g + self.beta * log_product) / (self.alpha + slope))


@dataclass(frozen=True, kw_only=True)
class Repeats(Law):
    """L = A / N'^alpha + B / D'^beta + L0 with N', D' the parameters and tokens that are worth as much without repeats.

    With U unique tokens, U_D = min(D, U) and R_D = D / U_D - 1 repeats, D' = U_D (1 + R_D* (1 - exp(-R_D / R_D*))); N'
    likewise from U_N, the size that is compute-optimal for U_D (Muennighoff et al. 2023).
    R_D*, R_N* say after how many repeats, or how large an excess of parameters, most of their value is gone.
    Raises InputError for a parameter that is not finite and positive (L0 may be zero).
    """

    L0: Any
    A: Any
    B: Any
    alpha: Any
    beta: Any
    R_D: Any
    R_N: Any

    name: ClassVar[str] = "repeats"
    models_repeats: ClassVar[bool] = True
    description: ClassVar[str] = (
        "L(N, D, U) = A/N'^alpha + B/D'^beta + L0, D' = U_D + U_D R_D (1 - exp(-(D/U_D - 1)/R_D)), N' likewise; "
        "Muennighoff et al. 2023 (arXiv:2305.16264)"
    )

    @property
    def unlimited(self) -> Chinchilla:
        """The law while no token is seen twice and no model is larger than is optimal for its tokens."""
        return Chinchilla(A=self.A, B=self.B, L0=self.L0, alpha=self.alpha, beta=self.beta)

    def predict(self, params: ArrayLike, tokens: ArrayLike, unique_tokens: ArrayLike | None = None) -> Array:
        params, tokens = np.asarray(params, np.float64), np.asarray(tokens, np.float64)
        unique = tokens if unique_tokens is None else np.minimum(tokens, np.asarray(unique_tokens, np.float64))
        # Along the frontier without repeats D* = (C/6)^b / G: the size whose optimal tokens are U_D is G (U_D G)^(a/b).
        log_g = (np.log(self.alpha * self.A) - np.log(self.beta * self.B)) / (self.alpha + self.beta)
        log_size = log_g + self.beta / self.alpha * (np.log(unique) + log_g)
        base = np.minimum(params, np.exp(np.clip(log_size, -MOST_LOG, MOST_LOG)))
        effective_tokens = unique * (1 + self.R_D * -np.expm1(-(tokens / unique - 1) / self.R_D))
        effective_params = base * (1 + self.R_N * -np.expm1(-(params / base - 1) / self.R_N))
        return self.unlimited.predict(effective_params, effective_tokens)

    def optimum(self, flops: ArrayLike, unique_tokens: ArrayLike | None = None) -> Optimum:
        """Closed where text never runs out; otherwise the minimum over N, found numerically."""
        if unique_tokens is None:
            return split(self, budgets(flops), np.log(self.unlimited.optimum(flops).params))
        unique = np.asarray(unique_tokens, np.float64)
        if not np.all(np.isfinite(unique) & (unique >= 1)):
            raise InputError(f"unique_tokens: {unique} is no amount of text; give a number of tokens such as 25e9")
        return numeric_optimum(self, budgets(flops), unique)


@dataclass(frozen=True, kw_only=True)
class BrokenCompute(Law):
    """A broken power law in compute for the best model of a budget, with the loss of every other size beside it.

    L(N, D) = L0 + F(C) (beta (N*/N)^alpha + alpha (N/N*)^beta) / (alpha + beta), C = 6 N D, N* = G (C/6)^a,
    a = beta / (alpha + beta), F(C) = F C^-c0 (1 + (C/C_b)^(1/f))^(-c1 f) (Caballero et al. 2023, eq. 1, one break: the
    exponent goes from c0 to c0 + c1 near C_b, over about f e-folds). c1 = 0 and c0 = alpha beta / (alpha + beta) is
    Chinchilla's law exactly.
    Raises InputError for a parameter that is not finite and positive (L0 may be zero, c1 may have either sign).
    """

    L0: Any
    F: Any
    c0: Any
    c1: Any
    C_b: Any
    f: Any
    G: Any
    alpha: Any
    beta: Any

    name: ClassVar[str] = "broken"
    signed: ClassVar[tuple[str, ...]] = ("c1",)
    description: ClassVar[str] = (
        "L(N, D) = L0 + F C^-c0 (1 + (C/C_b)^(1/f))^(-c1 f) (beta (N*/N)^alpha + alpha (N/N*)^beta)/(alpha + beta), "
        "N* = G (C/6)^(beta/(alpha + beta)); Caballero et al. 2023 (arXiv:2210.14891), eq. 1, along the frontier"
    )

    def _log_best(self, log_product: Array) -> Array:
        return np.log(self.G) + self.beta / (self.alpha + self.beta) * log_product

    def predict(self, params: ArrayLike, tokens: ArrayLike, unique_tokens: ArrayLike | None = None) -> Array:
        log_n, log_d = logs(params, tokens)
        log_c = np.log(FLOPS_PER_PARAM_TOKEN) + log_n + log_d
        off = log_n - self._log_best(log_n + log_d)
        log_f = np.log(self.F) - self.c0 * log_c
        log_f = log_f - self.c1 * self.f * np.logaddexp(0.0, (log_c - np.log(self.C_b)) / self.f)
        aside = np.logaddexp(np.log(self.beta) - self.alpha * off, np.log(self.alpha) + self.beta * off)
        return np.exp(log_f + aside - np.log(self.alpha + self.beta)) + self.L0

    def optimum(self, flops: ArrayLike, unique_tokens: ArrayLike | None = None) -> Optimum:
        """N* = G (C/6)^a by the law's construction."""
        flops = budgets(flops)
        return split(self, flops, self._log_best(np.log(flops / FLOPS_PER_PARAM_TOKEN)))


def numeric_optimum(law: Law, flops: Array, unique_tokens: Array) -> Optimum:
    """The minimum over N of a law at C = 6 N D, for budgets [...] and a law whose parameters broadcast with them."""
    size = np.asarray(next(iter(law.parameters.values())), np.float64)
    shape = np.broadcast_shapes(size.shape, flops.shape, unique_tokens.shape)
    log_product = np.broadcast_to(np.log(flops / FLOPS_PER_PARAM_TOKEN), shape)

    def loss(log_n: Array) -> Array:
        return law.predict(np.exp(log_n), np.exp(log_product - log_n), unique_tokens)

    best = minimum(loss, np.zeros(shape), np.maximum(log_product, 1.0))
    return split(law, flops, best, unique_tokens)
