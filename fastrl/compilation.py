"""The persistent compilation cache: a program that has been compiled once starts at once.

On by default (`import fastrl` turns it on): JAX keeps every compiled program in a folder and
finds it again in the next process.  JAX's own settings win where they are set.
"""

import os
from pathlib import Path

import jax


def enable_cache(directory: str | os.PathLike[str] | None = None) -> Path | None:
    """Keeps compiled programs in `directory`; returns it, or None where there is no cache.

    By default the folder is `FASTRL_CACHE_DIR`, or `fastrl/xla` in the user's cache folder.
    Does nothing if `FASTRL_CACHE_DIR` is empty, if JAX has a cache folder already, or if the
    folder can't be made: a cache that is missing costs time and nothing else.
    """
    if directory is None:
        configured = jax.config.values["jax_compilation_cache_dir"]
        if configured is not None:
            return Path(configured)
        directory = os.environ.get("FASTRL_CACHE_DIR", _default_directory())
        if not directory:
            return None
    path = Path(directory).expanduser()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    if not os.access(path, os.W_OK):
        return None
    jax.config.update("jax_compilation_cache_dir", str(path))
    # Small programs (initialisers, resets) count too: all of them make up a cold start.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return path


def _default_directory() -> str:
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache")
    return os.path.join(base, "fastrl", "xla")
