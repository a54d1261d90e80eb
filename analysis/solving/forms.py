"""Every law by name, as it is fitted."""

from collections.abc import Mapping

from analysis.errors import InputError
from analysis.solving.curved import BrokenForm, CoupledForm, KaplanForm, RepeatsForm
from analysis.solving.form import Form
from analysis.solving.sums import ChinchillaForm, EqualForm, InteractionForm

FORMS: Mapping[str, type[Form]] = {
    form.fits.name: form
    for form in (ChinchillaForm, EqualForm, CoupledForm, KaplanForm, InteractionForm, RepeatsForm, BrokenForm)
}


def form_of(law: str) -> type[Form]:
    """The form of a law. Raises InputError for an unknown one."""
    if law not in FORMS:
        raise InputError(f"law: {law!r} is unknown; choose one of {', '.join(FORMS)}")
    return FORMS[law]
