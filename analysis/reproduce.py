"""Published scaling-law results, computed again from their published tables: what was printed, what we get.

The tables are other people's and are not part of this package: give the folder that holds them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from analysis import recipes
from analysis.backtest import backtest
from analysis.errors import InputError
from analysis.fit import Fit, fit
from analysis.laws import Chinchilla
from analysis.reading.rows import numbers
from analysis.rivals import Repeats
from analysis.skills.two_stage import two_stage
from analysis.solving.solve import Loss
from analysis.table import Table, read
from analysis.words.summary import columns

EXPONENT, COEFFICIENT = 0.005, 0.01  # absolute and relative tolerance, as their tables round
PORIAN = 0.01  # of exponents and of the ends of their intervals, which come from other random draws


@dataclass(frozen=True, kw_only=True)
class Check:
    """One published number against ours. tolerance: on the difference, or relative to the published number.

    at_most: the published number is a bound that ours must not exceed, by more than the tolerance. A number that was
    not published is shown for what it is.
    """

    name: str
    published: float | None
    ours: float
    tolerance: float = 0.0
    relative: bool = False
    at_most: bool = False

    @property
    def difference(self) -> float | None:
        return None if self.published is None else self.ours - self.published

    @property
    def passed(self) -> bool:
        if self.published is None or self.difference is None:
            return True
        room = self.tolerance * (abs(self.published) if self.relative else 1.0)
        return bool(self.difference <= room if self.at_most else abs(self.difference) <= room)


def reproduce(paper: str, data: str | Path) -> tuple[Check, ...]:
    """The checks of one paper (a key of PAPERS) from the tables in the folder `data`.

    Raises InputError for an unknown paper and for a table that is not there.
    """
    if paper not in PAPERS:
        raise InputError(f"paper: {paper!r} is unknown; choose one of {', '.join(PAPERS)}")
    folder = Path(data)
    if (folder / "runs").is_dir():
        folder = folder / "runs"
    return PAPERS[paper](folder)


def besiroglu(folder: Path) -> tuple[Check, ...]:
    """Besiroglu et al. 2024 (arXiv:2404.10102): the refit of Hoffmann et al.'s approach 3 on 240 digitised runs."""
    table = _table(folder, "epoch_chinchilla.csv")
    trimmed = table.keep(table.loss_nats < np.sort(table.loss_nats)[-5])  # they leave out the five highest losses
    fitted, absolute = fit(trimmed, bootstrap=4000), fit(trimmed, loss="lad", bootstrap=0)
    assert fitted.samples is not None
    published = {"A": 482.01, "B": 2085.43, "L0": 1.8172, "alpha": 0.3478, "beta": 0.3658}
    spread = {"L0": 0.0257, "alpha": 0.0154, "beta": 0.0206}  # standard errors of 4,000 resamples
    spread_a = float(np.std(fitted.samples.exponents["a"]))
    reprinted = Chinchilla(A=482.01, B=2085.43, L0=1.8172, alpha=0.3478, beta=0.3658)
    return (
        Check(name="objective, 240 runs", published=0.0010182740346, ours=fitted.objective, tolerance=1e-9,
              at_most=True),
        Check(name="objective, 245 runs", published=0.0018260105, ours=fit(table, bootstrap=0).objective,
              tolerance=1e-8, at_most=True),
        *(
            Check(name=f"{name}, absolute deviations", published=value, ours=_value(absolute, name),
                  tolerance=3e-4, relative=True)
            for name, value in published.items()
        ),
        *(
            Check(name=f"standard error of {name}", published=value, relative=True, tolerance=0.1,
                  ours=float(np.std(fitted.samples.parameters[name])))
            for name, value in spread.items()
        ),
        *(
            Check(name=f"standard error of log {name}", published=None,
                  ours=float(np.std(np.log(fitted.samples.parameters[name]))))
            for name in ("A", "B")
        ),
        Check(name="standard error of a", published=0.020, ours=spread_a, tolerance=0.1, relative=True),
        Check(name="N* at 5.76e23 FLOPs", published=72.25e9, ours=float(reprinted.optimum(5.76e23).params),
              tolerance=1e-3, relative=True),
        Check(name="mean error of the largest fifth, left out", published=0.010526, tolerance=5e-4,
              ours=_mean_error(trimmed)),
    )  # fmt: skip


def hoffmann(folder: Path) -> tuple[Check, ...]:
    """Hoffmann et al. 2022 (arXiv:2203.15556): their law's optimum, rounded and not; approach 1's own table."""
    rounded = Chinchilla(A=406.4, B=410.7, L0=1.69, alpha=0.34, beta=0.28)  # eq. 10
    exact = Chinchilla(
        A=np.exp(6.0073404), B=np.exp(6.0179186), L0=np.exp(0.5267228), alpha=0.33917084, beta=0.2849083
    )  # in the source of the paper
    # Table 3: parameters, FLOPs, tokens of the optimum by approach 1.
    rows = np.array(
        [(400e6, 1.92e19, 8.0e9), (1e9, 1.21e20, 20.2e9), (10e9, 1.23e22, 205.1e9), (67e9, 5.76e23, 1.5e12),
         (175e9, 3.85e24, 3.7e12), (280e9, 9.90e24, 5.9e12), (520e9, 3.43e25, 11.0e12), (1e12, 1.27e26, 21.2e12),
         (10e12, 1.30e28, 216.2e12)]
    )  # fmt: skip
    log_n, log_c, log_d = np.log(rows).T
    refit = fit(_table(folder, "epoch_chinchilla.csv"), bootstrap=0)
    printed = _huber(exact, refit.table)
    return (
        *(
            Check(name=f"{what}, {name} coefficients", published=value, ours=ours, tolerance=1e-3, relative=True)
            for name, law, sizes in (("rounded", rounded, (32.19e9, 2.982e12)), ("full", exact, (40.36e9, 2.379e12)))
            for what, value, ours in (
                ("N* at 5.76e23 FLOPs", sizes[0], float(law.optimum(5.76e23).params)),
                ("D* at 5.76e23 FLOPs", sizes[1], float(law.optimum(5.76e23).tokens)),
            )
        ),
        Check(name="a of approach 3", published=0.46, ours=float(exact.exponents["a"]), tolerance=EXPONENT),
        Check(name="a of approach 1, from table 3", published=0.50, ours=float(np.polyfit(log_c, log_n, 1)[0]),
              tolerance=EXPONENT),
        Check(name="b of approach 1, from table 3", published=0.50, ours=float(np.polyfit(log_c, log_d, 1)[0]),
              tolerance=EXPONENT),
        # Besiroglu et al.'s finding: their printed law is not the minimum of their own objective on their own runs.
        Check(name="our objective on their runs, at most theirs", published=printed, ours=refit.objective,
              tolerance=0.0, at_most=True),
    )  # fmt: skip


def muennighoff(folder: Path) -> tuple[Check, ...]:
    """Muennighoff et al. 2023 (arXiv:2305.16264): the value of repeated tokens and of excess parameters."""
    base = {"A": np.exp(6.255414), "B": np.exp(7.3049974), "L0": np.exp(0.6254804), "alpha": 0.3526596}
    base["beta"] = base["alpha"]
    law = Repeats(**base, R_D=15.387756, R_N=5.309743)
    best = law.optimum(1e22, 25e9)
    fitted = fit(_table(folder, "datablations.csv"), "repeats", fixed=base, bootstrap=0)
    return (
        Check(name="loss of 6.34e9 parameters, 242e9 tokens", published=2.225644089, tolerance=1e-9,
              ours=float(law.predict(6.34e9, 242e9, 25e9))),
        Check(name="loss of 8.67e9 parameters, 178e9 tokens", published=2.2269634075, tolerance=1e-9,
              ours=float(law.predict(8.67e9, 178e9, 25e9))),
        Check(name="N* at 1e22 FLOPs, 25e9 unique tokens", published=7.02e9, ours=float(best.params),
              tolerance=COEFFICIENT, relative=True),
        Check(name="D* there", published=237.3e9, ours=float(best.tokens), tolerance=COEFFICIENT, relative=True),
        Check(name="epochs there", published=9.49, ours=float(best.tokens) / 25e9, tolerance=0.005),
        # R_D* = 15.39 and R_N* = 5.31 are a local minimum of their objective; the global one lies elsewhere.
        Check(name="objective, at most theirs", published=0.0158259366, ours=fitted.objective, tolerance=0.0,
              at_most=True),
        Check(name="objective, at most the lowest known", published=0.0158046625, ours=fitted.objective,
              tolerance=1e-8, at_most=True),
    )  # fmt: skip


def gadre(folder: Path) -> tuple[Check, ...]:
    """Gadre et al. 2024 (arXiv:2403.08540): five small runs predict over-trained and large ones, loss and error.

    Their L = E + (a M^eta + b M^-eta) C^-eta with M = D/N and C = 6ND is Chinchilla's law with one exponent, 2 eta.
    """
    table = _table(folder, "gadre_redpajama.csv")
    small = [f"rpj-d={size}-1.0" for size in ("96_l=8_h=4", "512_l=8_h=4", "576_l=24_h=8", "1024_l=24_h=8")]
    small.append("rpj-d=96_l=8_h=4-16.0")
    run = table.frame["run_id"].astype(str)
    fitted = fit(table.keep(run.isin(small)), "equal", loss="mse", residual="nats", bootstrap=0)
    alpha = _value(fitted, "alpha")
    large = [int(np.flatnonzero(run == name)[0]) for name in ("rpj-open_lm_1b-32.0", "rpj-open_lm_7b-1.0")]
    predicted = fitted.law.predict(table.params[large], table.tokens[large])
    errors = 100 * np.abs(predicted / table.loss_nats[large] - 1)
    seen = run.isin([*small, "rpj-open_lm_1b-1.0"]).to_numpy()
    average = numbers(table.frame, "err_avg_subset")
    stages = two_stage(fitted, table.keep(seen), 1.0 - average[seen], form="exponential", chance=None)
    told = 1.0 - stages.predict(table.params[large], table.tokens[large]).score
    return (
        Check(name="E", published=1.83664836, ours=_value(fitted, "L0"), tolerance=COEFFICIENT, relative=True),
        Check(name="2 eta", published=0.2728507, ours=alpha, tolerance=EXPONENT),
        Check(name="a 6^-eta", published=166.21, ours=_value(fitted, "A"), tolerance=COEFFICIENT, relative=True),
        Check(name="b", published=366.687, ours=_value(fitted, "B") * 6 ** (alpha / 2), tolerance=COEFFICIENT,
              relative=True),
        Check(name="error of 1.4 B, 32 x over-trained (%)", published=0.7103, ours=errors[0], tolerance=0.01),
        Check(name="error of 6.9 B (%)", published=0.732, ours=errors[1], tolerance=0.01),
        Check(name="error of its 17-task average, 1.4 B (%)", published=3.6365, tolerance=0.05,
              ours=100 * (told[0] / average[large[0]] - 1)),
        Check(name="error of its 17-task average, 6.9 B (%)", published=0.0464, tolerance=0.05,
              ours=100 * (told[1] / average[large[1]] - 1)),
    )  # fmt: skip


def pythia(folder: Path) -> tuple[Check, ...]:
    """Pythia's own evaluations (arXiv:2304.01373): LAMBADA accuracy of 12 B from the sizes up to 2.8 B, in two stages.

    Finished runs alone (step 143,000), all on 300 G tokens, each of the two corpora by itself. The loss is the
    logarithm of LAMBADA's perplexity, nats of the word asked for: its law in N is fitted, then accuracy on it. Of the
    two forms the one of less scatter over the sizes fitted predicts.
    """
    checks = []
    for corpus, deduped in (("the Pile", "False"), ("the Pile, deduplicated", "True")):
        best, *others = recipes.pythia(_file(folder, "pythia_zeroshot.csv"), deduped)
        assert best.interval is not None
        checks += [
            Check(name=f"LAMBADA accuracy of 12 B (%), {corpus}", published=100 * best.measured,
                  ours=100 * best.predicted, tolerance=3.0),
            Check(name="low end of its 95 % interval", published=100 * best.measured, ours=100 * best.interval[0],
                  at_most=True),
            Check(name="its high end, negated", published=-100 * best.measured, ours=-100 * best.interval[1],
                  at_most=True),
            *(Check(name="by the form of more scatter", published=None, ours=100 * each.predicted) for each in others),
        ]  # fmt: skip
    return tuple(checks)


def llama3(folder: Path) -> tuple[Check, ...]:
    """Llama 3 (arXiv:2407.21783), Sec. 3.2.1: its IsoFLOP runs, digitised, by approach 2 and by two least squares."""
    table = _table(folder, "llama3_isoflop.csv")
    expected = {
        "nats": {"L0": 0.60467, "A": 59.141, "B": 155.114, "alpha": 0.31001, "beta": 0.31364},
        "log": {"L0": 0.60209, "A": 56.206, "B": 147.323, "alpha": 0.30677, "beta": 0.31097},
    }
    checks = []
    for residual, values in expected.items():
        fitted = fit(table, loss="mse", residual="nats" if residual == "nats" else "log", bootstrap=0)
        for name, value in values.items():
            exponent = name in ("alpha", "beta")
            checks.append(
                Check(name=f"{name}, least squares of residuals in {residual}", published=value, relative=not exponent,
                      ours=_value(fitted, name), tolerance=EXPONENT if exponent else COEFFICIENT)
            )  # fmt: skip
    frontier = recipes.llama3(table, bootstrap=0).frontier
    best, a, b = frontier.optimum(3.8e25), frontier.exponents["a"], frontier.exponents["b"]
    checks += [
        Check(name="a of approach 2", published=0.46322, ours=float(a), tolerance=EXPONENT),
        Check(name="b of approach 2", published=0.53678, ours=float(b), tolerance=EXPONENT),
        Check(name="N* at 3.8e25 FLOPs", published=393.3e9, ours=float(best.params), tolerance=COEFFICIENT,
              relative=True),
        Check(name="D* at 3.8e25 FLOPs", published=16.1e12, ours=float(best.tokens), tolerance=COEFFICIENT,
              relative=True),
        # As printed, from the figures before digitising: 402 B parameters on 16.55 T tokens.
        Check(name="N* at 3.8e25 FLOPs, as printed", published=402e9, ours=float(best.params), tolerance=0.05,
              relative=True),
        Check(name="D* at 3.8e25 FLOPs, as printed", published=16.55e12, ours=float(best.tokens), tolerance=0.05,
              relative=True),
    ]  # fmt: skip
    return tuple(checks)


def porian(folder: Path) -> tuple[Check, ...]:
    """Porian et al. 2024 (arXiv:2406.19146): exponents a of five set-ups on RefinedWeb."""
    published = {
        "kaplan": (0.835, 0.824, 0.846),
        "head": (0.706, 0.691, 0.717),
        "warmup": (0.602, 0.591, 0.617),
        "cosine": (0.571, 0.560, 0.589),
        "tuned": (0.497, 0.491, 0.505),
    }
    path = _file(folder, "porian_refinedweb.csv")
    checks = []
    for setup, (value, low, high) in published.items():
        found = recipes.porian(recipes.porian_setup(path, setup))
        ends = found.intervals["a"]
        for name, number, ours in (("a", value, float(found.frontier.exponents["a"])), ("its low end", low, ends[0]),
                                   ("its high end", high, ends[1])):  # fmt: skip
            checks.append(Check(name=f"{name}, {setup}", published=number, ours=ours, tolerance=PORIAN))
    return tuple(checks)


PAPERS: Mapping[str, Callable[[Path], tuple[Check, ...]]] = {
    "besiroglu": besiroglu,
    "hoffmann": hoffmann,
    "porian": porian,
    "gadre": gadre,
    "muennighoff": muennighoff,
    "llama3": llama3,
    "pythia": pythia,
}


def _file(folder: Path, name: str) -> Path:
    if not (folder / name).is_file():
        raise InputError(f"data: {str(folder)!r} holds no {name}; give the folder of the published tables")
    return folder / name


def _table(folder: Path, name: str) -> Table:
    return read(_file(folder, name))


def _value(fitted: Fit, name: str) -> float:
    return float(fitted.law.parameters[name])


def _huber(law: Chinchilla, table: Table) -> float:
    """The objective of a law on a table."""
    residual = np.log(law.predict(table.params, table.tokens) / table.loss_nats)
    return Loss().total(residual, np.ones(len(table)))


def _mean_error(table: Table) -> float:
    return backtest(table, holdout=0.2, bootstrap=0).mean_relative_error


def reproduce_text(paper: str, checks: Sequence[Check]) -> str:
    """A line a number: published, ours, difference, tolerance, pass or fail."""
    rows = []
    for check in checks:
        digits = 10 if check.tolerance < 1e-6 else 6
        if check.published is None or check.difference is None:
            rows.append((check.name, "-", f"{check.ours:.4g}", "", "", ""))
            continue
        room = f"{100 * check.tolerance:g} %" if check.relative else f"{check.tolerance:g}"
        published = ("at most " if check.at_most else "") + f"{check.published:.{digits}g}"
        rows.append((check.name, published, f"{check.ours:.{digits}g}", f"{check.difference:+.2g}", room,
                     "pass" if check.passed else "FAIL"))  # fmt: skip
    about = (PAPERS[paper].__doc__ or "").splitlines()[0]
    judged = [check for check in checks if check.published is not None]
    passed = sum(check.passed for check in judged)
    lines = columns(("figure", "published", "ours", "difference", "tolerance", ""), rows)
    return "\n".join([about, "", *lines, "", f"{passed} of {len(judged)} reproduced"])
