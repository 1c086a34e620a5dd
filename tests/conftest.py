"""A strict session: four CPU devices, no display, a compilation cache, time limits that report."""

import gc
import os
import signal
import tempfile

# Before JAX starts: several devices for the sharding tests, one cache for all test processes.
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "4")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("FASTRL_CACHE_DIR", os.path.join(tempfile.gettempdir(), "fastrl-test-cache"))
# The cache's entries differ from what the compiler would write now in nothing but notes on
# machine features; XLA logs a line for each.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# A job in the background starts with Ctrl-C ignored, and its children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

from collections.abc import Iterator  # noqa: E402

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(autouse=True, scope="module")
def _programs_go() -> Iterator[None]:
    """A module's compiled programs go with it.

    Each holds memory maps, of which a process may have 65,530 on Linux by default; beyond them
    LLVM aborts the process.
    """
    yield
    jax.clear_caches()
    gc.collect()
