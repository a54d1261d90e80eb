"""Broken text: bytes that are no UTF-8, mojibake, control and replacement characters, Unicode forms."""

from __future__ import annotations

import re
import unicodedata

from lmscale.data.clean.libraries import library
from lmscale.data.clean.settings import Encoding
from lmscale.data.clean.verdict import Verdict, dropped, kept

# C0 but for tab, line feed, form feed and carriage return; DEL and C1; byte order marks
CONTROL = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\ufeff]")
REPLACEMENT = "\ufffd"


def decode(raw: bytes, encoding: Encoding) -> Verdict:
    """The text of bytes. Dropped by the rule `undecodable`, with the byte and where it stands, if they are no UTF-8."""
    try:
        return kept(raw.decode())
    except UnicodeDecodeError as error:
        if encoding.undecodable == "drop":
            return dropped("undecodable", f"byte 0x{raw[error.start]:02x} at offset {error.start}")
        return kept(raw.decode(errors="replace"), {"undecodable": 1})


class BrokenText:
    """Mends mojibake, removes control characters, and drops documents with too many of them or of U+FFFD."""

    def __init__(self, settings: Encoding) -> None:
        self.settings = settings
        if settings.mojibake == "mend":
            self._bad = library("ftfy.badness", "encoding").is_bad
            self._mend = library("ftfy", "encoding").fix_encoding

    def __call__(self, name: str, text: str) -> Verdict:
        edits = {"mojibake": 0, "control": 0, "form": 0}
        whole = len(text)
        # Mojibake first: its second characters are often in the control range
        if self.settings.mojibake == "mend" and not text.isascii() and self._bad(text):
            text, edits["mojibake"] = self._mend_lines(text)
        text, edits["control"] = CONTROL.subn("", text)
        share = (edits["control"] + text.count(REPLACEMENT)) / whole
        if share > self.settings.broken_max:
            return dropped("broken_max", share)
        if self.settings.form != "none" and not unicodedata.is_normalized(self.settings.form, text):
            text, edits["form"] = unicodedata.normalize(self.settings.form, text), 1
        return kept(text, edits)

    def _mend_lines(self, text: str) -> tuple[str, int]:
        """Line by line: a text may hold sound and broken lines, and only what is broken in one way can be mended."""
        lines, mended = text.splitlines(keepends=True), 0
        for index, line in enumerate(lines):
            if not line.isascii() and self._bad(line) and (better := self._mend(line)) != line:
                lines[index] = better
                mended += 1
        return "".join(lines), mended
