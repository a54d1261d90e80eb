"""Paths of object stores over fsspec: the URLs of etils.epath, with the methods of pathlib. No framework.

A PUT is atomic: an object is whole or absent. A folder is no more than a common beginning of names. There is no rename
and no appending; what is done instead is said in lmscale.store.files.
"""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

import fsspec
from etils.epath.gpath import PosixGPath

RETRY_SECONDS = (0.1, 0.5, 2.0)  # after another's conditional PUT was under way (S3 answers 409)
MAGIC = frozenset("*?[")
# by scheme: what makes a read one request, where the size would be asked for before
ONE_GET: Mapping[str, Mapping[str, Any]] = {"s3": {"max_concurrency": 1}}


class StorePath(PosixGPath):
    """An object, or the beginning of the names of some. Raises OSError, whatever the store's own error is.

    epath gives the path; what is done with it goes to fsspec directly, for epath would go through TensorFlow where that
    is installed, and through listings kept as long as the process lives, which do not show what other hosts write.
    """

    def exists(self) -> bool:
        return self._ask("exists")

    def is_dir(self) -> bool:
        return self._ask("isdir")

    def is_file(self) -> bool:
        return self._ask("isfile")

    def iterdir(self) -> Iterator[StorePath]:
        """What is below, in the order of names; nothing where there is nothing."""
        with contextlib.suppress(FileNotFoundError):
            names = {found.rstrip("/").rpartition("/")[2]: found for found in self._ask("ls", detail=False)}
            for name, found in sorted(names.items()):
                if found.rstrip("/") != str(self).partition("://")[2]:  # a marker that some tools leave for a folder
                    yield self / name

    def glob(self, pattern: str) -> Iterator[StorePath]:
        """Paths below whose parts match those of `pattern`."""
        first, _, rest = pattern.partition("/")
        if MAGIC & set(first):
            found = [path for path in self.iterdir() if fnmatchcase(path.name, first)]
        else:
            found = [self / first] if rest or (self / first).exists() else []
        for path in found:
            yield from path.glob(rest) if rest else (path,)

    def objects(self) -> list[str]:
        """The names of all objects below, relative to this one."""
        with contextlib.suppress(FileNotFoundError):
            beginning = f"{str(self).partition('://')[2]}/"
            return [name.removeprefix(beginning) for name in self._ask("find") if name.startswith(beginning)]
        return []

    def read_bytes(self) -> bytes:
        return self._ask("cat_file", **ONE_GET.get(self._scheme, {}))

    def read_text(self, encoding: str | None = "utf-8", errors: str = "strict") -> str:
        return self.read_bytes().decode(encoding or "utf-8", errors)

    def write_bytes(self, data: bytes) -> int:
        """PUTs the object, whole."""
        self._ask("pipe_file", data)
        return len(data)

    def create(self, data: bytes) -> bool:
        """PUTs the object unless there is one, as one step (If-None-Match of S3, ifGenerationMatch of GCS).

        Returns whether there is one with these bytes: a PUT whose answer was lost is repeated, and finds itself. So
        `data` must name who writes it where that matters.
        """
        pauses = iter(RETRY_SECONDS)
        while True:
            try:
                self._ask("pipe_file", data, mode="create")
                return True
            except OSError as error:  # there is one, in the words of many servers; or something else
                with contextlib.suppress(FileNotFoundError):
                    return self.read_bytes() == data
                pause = next(pauses, None) if error.errno == errno.EBUSY else None
                if pause is None:
                    raise
                time.sleep(pause)

    def unlink(self, missing_ok: bool = False) -> None:
        """Removes the object. S3 does not say whether there was one."""
        try:
            self._ask("rm_file")
        except FileNotFoundError:
            if not missing_ok:
                raise

    def remove(self, names: Sequence[str]) -> None:
        """Removes objects below by their names relative to this one."""
        if names:
            self._ask("rm", [f"{self}/{name}" for name in names], own=False)

    def rmtree(self, missing_ok: bool = True) -> None:
        """Removes all objects below, if there are any."""
        self.remove(self.objects())

    def mkdir(self, mode: int | None = None, parents: bool = False, exist_ok: bool = False) -> None:
        """There are no folders to make."""

    def modified(self) -> float:
        """When the object was written, in seconds by the store's clock, in whole ones on S3."""
        return self._ask("modified").timestamp()

    def upload(self, files: Mapping[str, str]) -> None:
        """PUTs local files, at once: names below this one by paths."""
        self._ask("put", list(files.values()), [f"{self}/{name}" for name in files], own=False)

    def download(self, files: Mapping[str, str]) -> None:
        """GETs objects, at once: paths by names below this one. Raises FileNotFoundError if one is not there."""
        self._ask("get", [f"{self}/{name}" for name in files], list(files.values()), own=False)

    def _ask(self, method: str, *args: Any, own: bool = True, **kwargs: Any) -> Any:
        """A method of the store's file system, on this path if `own`."""
        try:
            return getattr(_file_system(self._scheme), method)(*(str(self),) * own, *args, **kwargs)
        except OSError:
            raise
        except Exception as error:  # of botocore, aiohttp, google.auth and others
            raise OSError(errno.EIO, " ".join(str(error).split()) or type(error).__name__) from error

    @property
    def _scheme(self) -> str:
        return str(self).partition("://")[0]

    @property
    def _backend(self) -> Any:
        """What epath's own methods ask: those that are not above would see listings kept by this process."""
        raise TypeError("a StorePath has no methods beyond its own")


@cache
def _file_system(scheme: str) -> Any:
    return fsspec.filesystem(scheme, use_listings_cache=False)
