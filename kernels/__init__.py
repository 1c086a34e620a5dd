"""Kernels: small operations whose obvious form is slow, with the fast form beside it."""

if __name__ != "fastrl.kernels":
    raise ImportError(
        f"this folder was imported as {__name__!r}: import it as 'fastrl.kernels' "
        "(under two names every class in it would exist twice)"
    )
