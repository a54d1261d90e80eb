"""Where results lie: a folder of this machine, or a URL of an object store. Nothing of a store is imported before one
is named.
"""

from __future__ import annotations

import os
import re
from importlib.util import find_spec
from pathlib import Path
from typing import cast

from lmscale.study.typed import check

# The schemes of etils.epath, and the packages through which fsspec speaks them
PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs", "hf": "huggingface_hub"}
EXTRAS = ("s3", "gs")  # of this package
PLAIN = re.compile(r"[\w.:-]+(/[\w.:=+@ -]+)*")


def place(field: str, text: str) -> Path:
    """The path that a person wrote; of a URL, a lmscale.store.storage.StorePath, which has the methods of pathlib's
    that are used here.

    Raises InputError under `field` for a URL that is none, or whose store is not there or lets nobody in.
    """
    if "://" not in text:
        return Path(text)
    scheme, _, rest = text.partition("://")
    rest = rest.rstrip("/")
    known = scheme in PACKAGES
    check(known, field, text, "is no place that is known; give a folder, s3://BUCKET/PATH or gs://BUCKET/PATH")
    check(rest.split("/")[0] != "", field, text, f"names no bucket; write {scheme}://BUCKET/PATH")
    plain = PLAIN.fullmatch(rest) and not {".", ".."} & set(rest.split("/"))
    check(bool(plain), field, text, "is no plain path in a bucket; write names of letters, digits and . _ - = + @ :")
    package = PACKAGES[scheme]
    install = f"lmscale[{scheme}]" if scheme in EXTRAS else package
    there = find_spec(package) is not None and find_spec("etils") is not None
    check(there, field, text, f"needs {package}; pip install '{install}'")
    from lmscale.store.storage import StorePath

    path = StorePath(f"{scheme}://{rest}")
    try:
        (path / ".probe").exists()  # of a bucket alone, a store that does not answer would be one without it
        why = ""
    except OSError as error:
        why = error.strerror or str(error)
    check(not why, field, text, f"cannot be reached ({why}); check the bucket, its address and your credentials")
    return cast(Path, path)


def user_cache() -> Path:
    """The folder of the user's caches (XDG Base Directory Specification)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lmscale"


def beside(path: Path) -> Path:
    """Where on this machine lies what belongs to `path` but cannot be on a store: there itself or, if it is on one, in
    the user's cache under the same name.
    """
    if isinstance(path, Path):
        return path
    scheme, _, rest = str(path).partition("://")
    return user_cache() / scheme / rest
