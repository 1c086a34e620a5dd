"""How programs are compiled: the persistent cache, and two choices of XLA's CPU compiler.

The cache and `fuse_several_outputs` are on by default (`import fastrl` turns them on), and JAX's
own settings win.  With the cache a program that has been compiled once starts at once, in the next
process too.
"""

import os
from pathlib import Path

import jax

_OPTIONS = "--xla_backend_extra_options="
_SEVERAL_OUTPUTS = _OPTIONS + "xla_cpu_use_multi_output_fusion=1"
_WHOLE_LOOPS = "xla_cpu_small_while_loop_byte_threshold=1000000000"  # XLA's default is 1024


def fuse_several_outputs() -> None:
    """Lets XLA's CPU compiler compute several outputs in one loop.

    Without it every leaf of an environment's next state is computed by a loop of its own, which
    repeats what the leaves have in common: stepping classic control takes two to three times as
    long, Brax half as long again, and compiling is slower too.

    XLA reads `XLA_FLAGS` once, when JAX first uses a device, so this only has an effect before.
    Does nothing where the variable sets `xla_backend_extra_options` already, or where
    `FASTRL_XLA_FLAGS` is set to nothing; set to something, that is added instead.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    ours = os.environ.get("FASTRL_XLA_FLAGS", _SEVERAL_OUTPUTS)
    if ours and ours.partition("=")[0] not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {ours}".strip()


def whole_loops() -> None:
    """Lets XLA's CPU compiler make one kernel of a loop that has small operations only.

    Call it before the first JAX computation.  The operations then run one after the other on one
    core, with nothing between them: a single stream (`fastrl.streaming`) is two to five times as
    fast.  Loops with products of matrices, convolutions, sorts or calls of other code stay as they
    are, but a loop that stacks what it finds, as a rollout does, becomes slower, so this is no
    default.  Does nothing where the user has set `xla_backend_extra_options` or
    `FASTRL_XLA_FLAGS`.

    Raises RuntimeError if JAX has started already.
    """
    if _started():
        raise RuntimeError(
            "compilation.whole_loops() came too late: call it at the top of the script, "
            "before anything runs on JAX"
        )
    flags = os.environ.get("XLA_FLAGS", "").split()
    if _SEVERAL_OUTPUTS in flags:
        flags[flags.index(_SEVERAL_OUTPUTS)] = f"{_SEVERAL_OUTPUTS},{_WHOLE_LOOPS}"
        os.environ["XLA_FLAGS"] = " ".join(flags)


def _started() -> bool:
    """Whether JAX has looked for devices: then it refuses another number of them."""
    count = jax.config.values["jax_num_cpu_devices"]
    try:
        jax.config.update("jax_num_cpu_devices", abs(count) + 1)
    except RuntimeError:
        return True
    jax.config.update("jax_num_cpu_devices", count)
    return False


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
