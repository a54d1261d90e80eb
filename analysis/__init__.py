"""Scaling laws from a table of runs: read it, fit it, ask it for the optimum.

    import analysis
    fit = analysis.fit(analysis.read("runs.csv"))
    print(fit.law.optimum(1e21), fit.intervals["a"])

Names load on first use, so that `import analysis` costs nothing.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analysis.approaches import compare as compare
    from analysis.audit import audit as audit
    from analysis.backtest import backtest as backtest
    from analysis.backtest import rolling as rolling
    from analysis.curves import read_curves as read_curves
    from analysis.decision import decide as decide
    from analysis.envelope import envelope as envelope
    from analysis.errors import InputError as InputError
    from analysis.expected import expected as expected
    from analysis.fit import Fit as Fit
    from analysis.fit import fit as fit
    from analysis.groups import fit_groups as fit_groups
    from analysis.isoflop import isoflop as isoflop
    from analysis.laws import Chinchilla as Chinchilla
    from analysis.laws import EqualExponent as EqualExponent
    from analysis.likelihood import profile_likelihood as profile_likelihood
    from analysis.multiplier import multiplier as multiplier
    from analysis.multiverse import multiverse as multiverse
    from analysis.optimal import optimal as optimal
    from analysis.reproduce import reproduce as reproduce
    from analysis.rivals import BrokenCompute as BrokenCompute
    from analysis.rivals import Coupled as Coupled
    from analysis.rivals import Interaction as Interaction
    from analysis.rivals import Kaplan as Kaplan
    from analysis.rivals import Repeats as Repeats
    from analysis.suggest import suggest as suggest
    from analysis.table import Table as Table
    from analysis.table import from_frame as from_frame
    from analysis.table import read as read

_HOME = {
    "BrokenCompute": "rivals",
    "Chinchilla": "laws",
    "Coupled": "rivals",
    "EqualExponent": "laws",
    "Fit": "fit",
    "InputError": "errors",
    "Interaction": "rivals",
    "Kaplan": "rivals",
    "Repeats": "rivals",
    "Table": "table",
    "audit": "audit",
    "backtest": "backtest",
    "compare": "approaches",
    "decide": "decision",
    "envelope": "envelope",
    "expected": "expected",
    "fit": "fit",
    "fit_groups": "groups",
    "from_frame": "table",
    "isoflop": "isoflop",
    "multiplier": "multiplier",
    "multiverse": "multiverse",
    "optimal": "optimal",
    "profile_likelihood": "likelihood",
    "read": "table",
    "read_curves": "curves",
    "reproduce": "reproduce",
    "rolling": "backtest",
    "suggest": "suggest",
}

__all__ = sorted(_HOME)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'analysis' has no attribute {name!r}")
    value = getattr(import_module(f"analysis.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)


class _Package(ModuleType):
    """Keeps `analysis.fit` the function: importing the submodule analysis.fit would otherwise replace it."""

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, ModuleType) and _HOME.get(name) == name:
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
