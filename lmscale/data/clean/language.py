"""The language of a document, by py3langid: naive Bayes over byte n-grams (Lui and Baldwin 2012), no download."""

from __future__ import annotations

import difflib

from analysis.errors import InputError
from lmscale.data.clean.libraries import library
from lmscale.data.clean.settings import Language
from lmscale.data.clean.verdict import Verdict, dropped, kept


class OtherLanguage:
    """Drops documents that are not, with enough probability, in one of the languages kept. Raises InputError for a code
    that the library does not know.
    """

    def __init__(self, settings: Language) -> None:
        self.settings = settings
        langid = library("py3langid.langid", "language")
        self._identifier = langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)
        known = {str(code) for code in self._identifier.labels}
        for code in settings.kept:
            if code not in known:
                near = difflib.get_close_matches(code, sorted(known), n=3) or sorted(known)[:5]
                raise InputError(
                    f"corpus.cleaning.language.kept: {code!r} is none of the {len(known)} languages of py3langid; did "
                    f"you mean {', '.join(near)}?"
                )

    def __call__(self, name: str, text: str) -> Verdict:
        language, probability = self._identifier.classify(text[: self.settings.characters])
        if language not in self.settings.kept:
            return dropped("kept", f"{language} {probability:.3f}")
        if probability < self.settings.probability_min:
            return dropped("probability_min", f"{language} {probability:.3f}")
        return kept(text)
