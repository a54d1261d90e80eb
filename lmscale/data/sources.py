"""lmscale's own sources: which there are, what they hold (`survey`), and their documents in a fixed order.

Imports no framework, so that any process can ask cheaply whether a corpus is already prepared.
"""

from __future__ import annotations

import glob
import hashlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from importlib.machinery import PathFinder
from pathlib import Path

from analysis.errors import InputError
from lmscale.config import Corpus
from lmscale.data import bilingual, chain, hub, labelled, lexicon, task_text, tfds_folder
from lmscale.data.document import Document, Reading
from lmscale.data.hub import hub_documents
from lmscale.data.pair_files import pair_documents
from lmscale.data.planting import plant
from lmscale.data.python_source import list_package_source, list_python_source, python_documents
from lmscale.data.task_text import mix_in
from lmscale.data.text_files import json_documents, parquet_documents, text_documents
from lmscale.data.token_files import token_documents
from lmscale.study.typed import check

__all__ = ["BUILT_IN", "Document", "Survey", "documents", "entropy_nats", "holds_integers", "is_own", "survey"]

LEXICON, CHAIN, BILINGUAL, LABELLED = MADE = (
    "lexicon",
    "chain",
    "bilingual",
    "labelled",
)  # of the modules of these names, by settings of a corpus
FOUND = ("python_source", "package_source")  # on this machine
BUILT_IN = (*FOUND, *MADE)
MIXED = (*FOUND, CHAIN)  # those that a user's Mixture may name
PREFIXES = (tfds_folder.PREFIX, hub.PREFIX)
JSON, PARQUET, INTEGERS = (".jsonl", ".ndjson", ".json"), (".parquet",), (".npy", ".bin")
PAIRS = (".tsv",)

Reader = Callable[[Path, str, Corpus, Reading], Iterator[Document]]


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What a corpus holds, before it is read.

    `fingerprint` is a SHA-256 over names and contents of its files, in order. It is None of a dataset that is not on
    this machine yet: its name, and revision, then stand for it.
    """

    fingerprint: str | None
    size: int = 0  # bytes of the files; 0 where not known
    left_out: dict[str, int] = field(default_factory=dict)  # reason -> files
    packages: dict[str, str] = field(default_factory=dict)  # name -> version


def is_own(corpus: Corpus) -> bool:
    """Whether lmscale reads this corpus itself; else it is a Task or Mixture of the user's."""
    return bool(corpus.files) or corpus.task in BUILT_IN or corpus.task.startswith(PREFIXES)


def holds_integers(corpus: Corpus) -> bool:
    """Whether one of lmscale's own sources holds integers, not text.

    Raises InputError for files of which some do and some do not, and for slices that they cannot have.
    """
    if not corpus.files:
        return False
    paths = list_files(corpus.files)
    integers = [path for path in paths if _ending(path) in INTEGERS]
    if integers and len(integers) < len(paths):
        other = next(path for path in paths if path not in integers)
        raise InputError(
            f"corpus.files: {str(integers[0])!r} holds integers and {str(other)!r} text; name one kind alone"
        )
    if not any(_ending(path) in JSON + PARQUET for path in paths):
        _check_slices(corpus, {"source"}, "such files")
    return bool(integers)


def documents(corpus: Corpus, reading: Reading | None = None) -> Iterator[Document]:
    """The documents of one of lmscale's own sources, in their fixed order and in bounded memory.

    Raises:
        InputError: a file is missing or unreadable; a package, the network or credentials are missing; a document is
            bad and `corpus.on_bad` is not `skip`.
    """
    reading = reading or Reading(on_bad=corpus.on_bad)
    if corpus.task_text is not None:
        base = replace(corpus, task_text=None)
        check(
            not holds_integers(base),
            "corpus.task_text.share",
            corpus.task_text.share,
            "is of text, but the files hold integers; leave it out",
        )
        return mix_in(documents(base, reading), corpus.task_text, corpus.heldout, corpus.slices, reading)
    if corpus.facts is not None:
        base, passes = replace(corpus, facts=None), iter((Reading(on_bad=corpus.on_bad), reading))
        return plant(lambda: documents(base, next(passes)), corpus.facts, corpus.heldout)
    if corpus.files:
        return _file_documents(corpus, reading)
    if corpus.task.startswith(hub.PREFIX):
        return hub_documents(corpus, reading)
    if corpus.task.startswith(tfds_folder.PREFIX):
        from lmscale.data.tfds_source import tfds_documents  # TensorFlow reads these

        return tfds_documents(corpus, reading)
    if corpus.task == LEXICON:
        return lexicon.documents(corpus.lexicon, reading)
    if corpus.task == CHAIN:
        return chain.documents(corpus.chain, reading)
    if corpus.task == BILINGUAL:
        return bilingual.documents(corpus.bilingual, reading)
    if corpus.task == LABELLED:
        return labelled.documents(corpus.labelled, corpus.heldout, reading)
    return python_documents(_python_files(corpus)[0], corpus, reading)


def survey(corpus: Corpus) -> Survey:
    """Reads the files of one of lmscale's own sources through once, a second or so per GB, and looks into none.

    Raises InputError for one that is missing or unreadable, and for slices that the source does not have.
    """
    if corpus.task_text is not None:
        found = survey(replace(corpus, task_text=None))
        return replace(found, fingerprint=f"{found.fingerprint} {task_text.fingerprint(corpus.task_text)}")
    if corpus.facts is not None:
        found = survey(replace(corpus, facts=None))
        told = f"{found.fingerprint} {asdict(corpus.facts)}"
        return replace(found, fingerprint=hashlib.sha256(told.encode()).hexdigest())
    if corpus.files:
        fingerprint, size = _hash_files(_named(list_files(corpus.files)), "corpus.files")
        return Survey(fingerprint=fingerprint, size=size)
    if corpus.task.startswith(PREFIXES):
        of_hub = corpus.task.startswith(hub.PREFIX)
        folder = hub.hub_folder(corpus) if of_hub else tfds_folder.find(corpus)
        if folder is None:
            return Survey(fingerprint=None)
        inside = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
        files = [(path.relative_to(folder).as_posix(), path) for path in inside]
        fingerprint, size = _hash_files(files, "corpus.task")
        return Survey(fingerprint=fingerprint, size=0 if of_hub else size)
    if corpus.task in MADE:
        _check_slices(corpus, set(), "a text that is made")
    if corpus.task == BILINGUAL:
        size = corpus.bilingual.sentences * bilingual.PAIR_BYTES
        return Survey(fingerprint=bilingual.fingerprint(corpus.bilingual), size=size)
    if corpus.task == LABELLED:
        return Survey(fingerprint=labelled.fingerprint(corpus.labelled), size=labelled.LEAST_BYTES)
    if corpus.task == CHAIN:
        return Survey(fingerprint=chain.fingerprint(corpus.chain), size=4 * corpus.chain.tokens)
    if corpus.task == LEXICON:
        return Survey(fingerprint=lexicon.fingerprint(corpus.lexicon), size=corpus.lexicon.tokens)
    _check_slices(corpus, {"source"}, "Python sources")
    files, left_out, packages = _python_files(corpus)
    fingerprint, size = _hash_files(files, "corpus.task")
    return Survey(fingerprint=fingerprint, size=size, left_out=left_out, packages=packages)


def entropy_nats(corpus: Corpus) -> float | None:
    """The entropy rate of a corpus in nats a token, where it is known."""
    if corpus.name == LEXICON:
        return lexicon.entropy_nats(corpus.lexicon)
    return chain.entropy_nats(corpus.chain) if corpus.name == CHAIN else None


def module_fingerprint(module: str | None) -> str:
    """SHA-256 of a module's source, found without importing it or its parents; of its name where there is no source.

    It stands for the documents of a user's own Task, which are not known without running it.
    """
    module = module or ""
    content, search = module.encode(), [os.getcwd(), *sys.path]
    parts = module.split(".")
    for depth in range(1, len(parts) + 1):
        spec = PathFinder.find_spec(".".join(parts[:depth]), search)
        if spec is None:
            break
        if depth == len(parts) and spec.origin is not None and spec.origin.endswith(".py"):
            content = Path(spec.origin).read_bytes()
        search = list(spec.submodule_search_locations or [])
    return hashlib.sha256(content).hexdigest()


def list_files(patterns: Iterable[str]) -> list[Path]:
    """Regular files that match the glob patterns (`**` crosses folders), each once, sorted by path.

    Raises:
        InputError: a pattern matches no file.
    """
    found: dict[str, Path] = {}
    for pattern in patterns:
        expanded = os.path.expanduser(pattern)
        # A name that exists is taken as it is: it may hold '[' or '*' itself.
        matches = [expanded] if os.path.isfile(expanded) else glob.glob(expanded, recursive=True)
        matches = [match for match in matches if not os.path.isdir(match)]
        if not matches:
            mend = "correct the path or pattern"
            if os.path.isdir(expanded):
                mend = f"it is a folder: write '{pattern.rstrip('/')}/**/*.txt'"
            raise InputError(f"corpus.files: {pattern!r} matches no file; {mend}")
        for match in matches:
            found[os.path.realpath(match)] = Path(match)
    return [found[real] for real in sorted(found)]


def _file_documents(corpus: Corpus, reading: Reading) -> Iterator[Document]:
    for name, path in _named(list_files(corpus.files)):
        yield from _reader(path)(path, name, corpus, reading)


def _reader(path: Path) -> Reader:
    ending = _ending(path)
    if ending in JSON:
        return json_documents
    if ending in PARQUET:
        return parquet_documents
    if ending in PAIRS:
        return pair_documents
    return token_documents if ending in INTEGERS else text_documents


def _ending(path: Path) -> str:
    return Path(path.stem).suffix if path.suffix == ".gz" else path.suffix


def _named(paths: list[Path]) -> list[tuple[str, Path]]:
    """Files with their names within the folder that holds them all."""
    folder = os.path.commonpath([os.path.dirname(os.path.realpath(path)) for path in paths])
    return [(Path(os.path.relpath(os.path.realpath(path), folder)).as_posix(), path) for path in paths]


def _check_slices(corpus: Corpus, known: set[str], of: str) -> None:
    if missing := [name for name in corpus.slices if name not in known]:
        raise InputError(f"corpus.slices: {missing[0]!r} is no field of {of}, which have 'source' alone")


def _python_files(corpus: Corpus) -> tuple[list[tuple[str, Path]], dict[str, int], dict[str, str]]:
    if corpus.task == "python_source":
        files, left_out = list_python_source()
        return files, left_out, {}
    if corpus.task == "package_source":
        return list_package_source(corpus.packages)
    raise InputError(f"corpus.task: {corpus.task!r} is not a built-in corpus; name one of {', '.join(BUILT_IN)}")


def _hash_files(files: list[tuple[str, Path]], field_name: str) -> tuple[str, int]:
    """SHA-256 over names, sizes and contents; bytes in all."""
    digest, total = hashlib.sha256(), 0
    for name, path in files:
        if not path.is_file():  # a pipe or device would block, or never end
            raise InputError(f"{field_name}: {str(path)!r} is not a regular file; remove it or narrow the pattern")
        try:
            with path.open("rb") as stream:
                size = os.fstat(stream.fileno()).st_size
                content = hashlib.file_digest(stream, "sha256").digest()
        except OSError as error:
            raise InputError(
                f"{field_name}: {str(path)!r} cannot be read ({error.strerror}); mend its permissions or narrow the "
                "pattern"
            ) from None
        encoded = os.fsencode(name)
        digest.update(b"%d %d\n" % (len(encoded), size) + encoded + content)
        total += size
    return digest.hexdigest(), total
