"""A strict session: four CPU devices, no display, a compilation cache, time limits that report."""

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

import jax  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
