"""The user's cache: what was fetched or made once and may be made again."""

from __future__ import annotations

import os
import shutil
import threading
import uuid
from collections.abc import Callable
from pathlib import Path

from runtime.errors import MissingExtraError


def cache_folder() -> Path:
    """Where fetched weights, prepared data and targets lie: ``$EDGEDL_CACHE``, else the user's cache folder.

    Raises:
        MissingExtraError: platformdirs is not installed and the variable is not set.
    """
    chosen = os.environ.get("EDGEDL_CACHE")
    if chosen:
        return Path(chosen)
    try:
        import platformdirs
    except ImportError:
        raise MissingExtraError("platformdirs", "train") from None
    return Path(platformdirs.user_cache_dir("edgedl", appauthor=False))


_making = threading.Lock()


def made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """A folder of the cache, made if it is not there: once in a process, and by several processes without harm.

    Args:
        folder: Where it lies.
        make: Fills a new folder, which takes the place of this one once it is whole.
    """
    with _making:
        if folder.is_dir():
            return folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
        try:
            temporary.mkdir()
            make(temporary)
            try:
                temporary.rename(folder)
            except OSError:
                if not folder.is_dir():  # else another process was first, and its folder is as good
                    raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return folder
