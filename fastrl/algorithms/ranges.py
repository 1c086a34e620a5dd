"""What numbers hparams may be: those that mean the same in several learners, by their names."""

from typing import Any

from fastrl.door import Range

POSITIVE, NOT_NEGATIVE, SHARE = Range(0.0, open=True), Range(0.0), Range(0.0, 1.0)

COMMON = {
    "learning_rate": NOT_NEGATIVE, "final_learning_rate": NOT_NEGATIVE,
    "critic_learning_rate": NOT_NEGATIVE, "temperature_learning_rate": NOT_NEGATIVE,
    "anneal_steps": POSITIVE, "max_grad_norm": POSITIVE, "rms_decay": SHARE,
    "rms_epsilon": POSITIVE, "tau": SHARE, "target_period": Range(1.0),
    "gamma": SHARE, "gae_lambda": SHARE, "q_lambda": SHARE, "vtrace_lambda": SHARE,
    "clip": POSITIVE, "value_clip": POSITIVE, "temperature": POSITIVE,
    "epsilon": SHARE, "final_epsilon": SHARE, "exploration_steps": POSITIVE,
    "alpha": NOT_NEGATIVE, "beta": SHARE, "beta_steps": POSITIVE,
}  # fmt: skip


def of(hparams: type[Any], **own: Range) -> dict[str, Range]:
    """The ranges of the fields of `hparams` that are common, and those of its `own`."""
    return {name: COMMON[name] for name in hparams._fields if name in COMMON} | own
