"""Lists and reads the documents of the built-in corpora: the standard library's Python source, or a user's text files.

Imports no framework, so that any process can ask cheaply whether a corpus is already prepared (`survey`).
"""

from __future__ import annotations

import glob
import hashlib
import os
import sys
import sysconfig
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from importlib.machinery import PathFinder
from pathlib import Path

from analysis.errors import InputError
from lmscale.config import Corpus
from lmscale.data.planting import plant

BUILT_IN = ("python_source",)  # Tasks that lmscale.data.tasks registers itself
CHUNK_BYTES = 16 * 1024  # longer user files are cut, so that a single book has pieces to hold out
LEFT_OUT_FOLDERS = frozenset({"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"})
# Written when Python is built or by its packager: they differ between machines that run the same Python.
GENERATED = ("_sysconfigdata*.py", "config-*/*.py", "sitecustomize.py", "usercustomize.py")


@dataclass(frozen=True, kw_only=True)
class Document:
    """One document: a name that tells it apart within its corpus, and its text as UTF-8 bytes."""

    name: str
    text: bytes


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What a corpus holds. `fingerprint` is a SHA-256 over document names and contents, in order."""

    fingerprint: str
    documents: int
    bytes: int
    left_out: dict[str, int] = field(default_factory=dict)  # reason -> files


def documents(corpus: Corpus) -> Iterator[Document]:
    """The documents of a built-in corpus, in their fixed order and in bounded memory.

    Raises:
        InputError: a file is missing, empty, unreadable or not UTF-8; the corpus is not a built-in one.
    """
    return _open(corpus)[0]


def survey(corpus: Corpus) -> Survey:
    """Reads a built-in corpus through once: a second or so per GB. Raises InputError as `documents` does."""
    source, left_out = _open(corpus)
    digest, count, size = hashlib.sha256(), 0, 0
    for document in source:
        name = os.fsencode(document.name)
        digest.update(b"%d %d\n" % (len(name), len(document.text)) + name)
        digest.update(document.text)
        count += 1
        size += len(document.text)
    return Survey(fingerprint=digest.hexdigest(), documents=count, bytes=size, left_out=left_out)


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


def _open(corpus: Corpus) -> tuple[Iterator[Document], dict[str, int]]:
    if corpus.facts is not None:
        base = replace(corpus, facts=None)
        return plant(lambda: _open(base)[0], corpus.facts, corpus.heldout), _open(base)[1]
    if corpus.files:
        return file_documents(corpus.files), {}
    if corpus.task == "python_source":
        files, left_out = list_python_source()
        return python_documents(files), left_out
    raise InputError(f"corpus.task: {corpus.task!r} is not a built-in corpus; name one of {', '.join(BUILT_IN)}")


def stdlib() -> Path:
    """The folder of the running interpreter's standard library."""
    return Path(sysconfig.get_path("stdlib"))


def list_python_source(root: Path | None = None) -> tuple[list[tuple[str, Path]], dict[str, int]]:
    """The .py files below `root` (the standard library by default) that make up the corpus.

    Tests, installed packages and generated files are no part of it. Of files with equal content the first counts.

    Returns:
        (relative name, path) sorted by name; and how many files were left out, by reason.
    """
    root = root or stdlib()
    left_out: Counter[str] = Counter()
    seen: set[bytes] = set()
    files: list[tuple[str, Path]] = []
    for name, path in sorted(_walk(root)):
        if any(Path(name).match(pattern) for pattern in GENERATED):
            left_out["generated"] += 1
            continue
        try:
            text = path.read_bytes()
            text.decode()
        except OSError:
            left_out["unreadable"] += 1
            continue
        except UnicodeDecodeError:
            left_out["not_utf8"] += 1
            continue
        content = hashlib.sha256(text).digest()
        if not text:
            left_out["empty"] += 1
        elif content in seen:
            left_out["duplicate"] += 1
        else:
            seen.add(content)
            files.append((name, path))
    if not files:
        raise InputError(
            f"corpus.task: 'python_source' finds no .py files in {str(root)!r} (Python without its source); "
            "name text files with --corpus.files instead"
        )
    return files, dict(sorted(left_out.items()))


def _walk(root: Path) -> Iterator[tuple[str, Path]]:
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in LEFT_OUT_FOLDERS]  # site-packages may be vast
        for name in names:
            if name.endswith(".py"):
                path = Path(folder, name)
                yield path.relative_to(root).as_posix(), path


def python_documents(files: Iterable[tuple[str, Path]]) -> Iterator[Document]:
    """One document per file of `list_python_source`."""
    for name, path in files:
        yield Document(name=name, text=path.read_bytes())


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


def file_documents(patterns: Iterable[str], chunk_bytes: int = CHUNK_BYTES) -> Iterator[Document]:
    """The user's files, cut into documents of at most `chunk_bytes` (at a blank line or line end where there is one).

    Cutting starts at the top of each file, so text appended to it leaves all its documents but the last as they were.

    Raises:
        InputError: a pattern matches nothing; a file is empty, unreadable or not UTF-8 (with the offset of the byte).
    """
    paths = list_files(patterns)
    folder = os.path.commonpath([os.path.dirname(os.path.realpath(path)) for path in paths])
    for path in paths:
        name = Path(os.path.relpath(os.path.realpath(path), folder)).as_posix()
        offset = 0
        for index, text in enumerate(_read_chunks(path, chunk_bytes)):
            try:
                text.decode()
            except UnicodeDecodeError as error:
                raise InputError(
                    f"corpus.files: {str(path)!r} is not UTF-8 (byte 0x{text[error.start]:02x} at offset "
                    f"{offset + error.start}); convert it (iconv -t UTF-8) or narrow the pattern"
                ) from None
            offset += len(text)
            yield Document(name=f"{name}#{index}", text=text)
        if offset == 0:
            raise InputError(f"corpus.files: {str(path)!r} is empty; remove it or narrow the pattern")


def _read_chunks(path: Path, chunk_bytes: int) -> Iterator[bytes]:
    if not path.is_file():  # a pipe or device would block, or never end
        raise InputError(f"corpus.files: {str(path)!r} is not a regular file; remove it or narrow the pattern")
    try:
        with path.open("rb") as stream:
            pending = b""
            while block := stream.read(1 << 20):
                pending += block
                start = 0
                while len(pending) - start > chunk_bytes:
                    end = start + _cut(pending[start : start + chunk_bytes])
                    yield pending[start:end]
                    start = end
                pending = pending[start:]
            if pending:
                yield pending
    except OSError as error:
        raise InputError(
            f"corpus.files: {str(path)!r} cannot be read ({error.strerror}); mend its permissions or narrow the pattern"
        ) from None


def _cut(window: bytes) -> int:
    """Where to end a document that starts with `window`: after a blank line, else a line, else a whole character.

    Cuts in the first half are refused, so that documents stay near their full length.
    """
    half = len(window) // 2
    for end in (max(window.rfind(b"\n\n") + 2, window.rfind(b"\n\r\n") + 3), window.rfind(b"\n") + 1):
        if end > half:
            return end
    end = len(window)
    while end > len(window) - 3 and window[end - 1] & 0xC0 == 0x80:  # step back over continuation bytes
        end -= 1
    if end > 1 and window[end - 1] & 0xC0 == 0xC0:  # and over the first byte of the character
        end -= 1
    return end
