"""Files of pairs: a source and its target a line, with a tab between, as translations are shared. Also as .gz."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lmscale.config import Corpus
from lmscale.data.document import Document, Reading
from lmscale.data.text_files import BOM, SOURCE, lines

SEPARATOR = b"\t"


def pair_documents(path: Path, name: str, corpus: Corpus, reading: Reading) -> Iterator[Document]:
    """A TSV file: a document a line, which is both sides with the tab between them.

    Raises:
        InputError: a line is too long, no UTF-8, or not two sides of text, unless such are skipped.
    """
    fields = {SOURCE: name} if SOURCE in corpus.slices else {}
    for number, line in lines(path, reading):
        where = f"corpus.files: {str(path)!r} line {number}"
        text = line.removeprefix(BOM).rstrip(b"\r\n")
        sides = text.split(SEPARATOR)
        try:
            text.decode()
        except UnicodeDecodeError as error:
            reading.bad("not_utf8", f"{where} is not UTF-8 (byte 0x{text[error.start]:02x} at {error.start} of it)")
            continue
        if len(sides) != 2 or not all(side.strip() for side in sides):
            reading.bad("no_pair", f"{where} has {len(sides)} columns with text or none in them; a pair is a source, a "
                        "tab and a target")  # fmt: skip
            continue
        yield Document(name=f"{name}#{number}", text=text, fields=fields)
