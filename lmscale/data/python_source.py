"""Python sources as text: the standard library's, or those of installed packages, without doubles, in a fixed order."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import sysconfig
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from analysis.errors import InputError
from lmscale.config import Corpus
from lmscale.data.document import Document, Reading

LEFT_OUT_FOLDERS = frozenset({"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"})
# Written when Python is built or by its packager: they differ between machines that run the same Python.
GENERATED = ("_sysconfigdata*.py", "config-*/*.py", "sitecustomize.py", "usercustomize.py")
SOURCE = "source"

Files = list[tuple[str, Path]]


def stdlib() -> Path:
    """The folder of the running interpreter's standard library."""
    return Path(sysconfig.get_path("stdlib"))


def list_python_source(root: Path | None = None) -> tuple[Files, dict[str, int]]:
    """The .py files below `root` (the standard library by default) that make up the corpus.

    Tests, installed packages and generated files are no part of it. Of files with equal content the first counts.

    Returns:
        (relative name, path) sorted by name; and how many files were left out, by reason.
    """
    root = root or stdlib()
    files, left_out = _distinct(sorted(_walk(root)))
    if not files:
        raise InputError(
            f"corpus.task: 'python_source' finds no .py files in {str(root)!r} (Python without its source); "
            "name text files with --corpus.files instead"
        )
    return files, left_out


def list_package_source(packages: Iterable[str]) -> tuple[Files, dict[str, int], dict[str, str]]:
    """The .py files of installed distributions, without their tests: names begin with that of the distribution.

    Returns:
        the files as `list_python_source` has them; how many were left out; the version of each package.

    Raises:
        InputError: a package is not installed, or holds no Python source.
    """
    found: Files = []
    versions = {}
    for package in sorted(packages):
        try:
            distribution = importlib.metadata.distribution(package)
        except (importlib.metadata.PackageNotFoundError, ValueError):
            raise InputError(f"corpus.packages: {package!r} is not installed; pip install it, or name others") from None
        versions[package] = distribution.version
        own = [
            (f"{package}/{file.as_posix()}", Path(str(file.locate())))
            for file in distribution.files or ()
            if file.suffix == ".py" and ".." not in file.parts and not LEFT_OUT_FOLDERS & set(file.parts[:-1])
        ]
        if not own:
            raise InputError(f"corpus.packages: {package!r} holds no .py files; name others")
        found += sorted(own)
    files, left_out = _distinct(found)
    return files, left_out, versions


def _distinct(found: Files) -> tuple[Files, dict[str, int]]:
    left_out: Counter[str] = Counter()
    seen: set[bytes] = set()
    files: Files = []
    for name, path in found:
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
    return files, dict(sorted(left_out.items()))


def _walk(root: Path) -> Iterator[tuple[str, Path]]:
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in LEFT_OUT_FOLDERS]  # site-packages may be vast
        for name in names:
            if name.endswith(".py"):
                path = Path(folder, name)
                yield path.relative_to(root).as_posix(), path


def python_documents(files: Iterable[tuple[str, Path]], corpus: Corpus, reading: Reading) -> Iterator[Document]:
    """One document per file. Its field `source` is the package, or `python`."""
    for name, path in files:
        text = path.read_bytes()
        reading.done += len(text)
        if reading.check_size(len(text), f"corpus.task: {str(path)!r}"):
            source = "python" if corpus.task == "python_source" else name.partition("/")[0]
            yield Document(name=name, text=text, fields={SOURCE: source} if SOURCE in corpus.slices else {})
