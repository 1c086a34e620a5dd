"""Updates of A2C, REINFORCE, IMPALA and PQN in float64 NumPy, for linear networks."""

import numpy as np


def double(tree):
    """A record of arrays in float64, flags and integers as they are."""
    cast = lambda x: np.asarray(x, np.float64 if np.asarray(x).dtype.kind == "f" else None)  # noqa: E731
    return type(tree)(*[x if isinstance(x, tuple) else cast(x) for x in tree])


def actor_critic_gradient(params, batch, value_coefficient, entropy_coefficient):
    """The gradient of mean[-A log pi + c_v (V - target)^2 / 2 - c_e H], derived by hand.

    `batch` has `observation` `[B, D]`, `action`, `advantage` and `target` `[B]`.
    """
    x, size = batch["observation"], len(batch["observation"])
    logits = x @ params["actor_w"] + params["actor_b"]
    logits = logits - logits.max(-1, keepdims=True)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    p, value = np.exp(log_p), x @ params["critic_w"][:, 0] + params["critic_b"][0]
    chosen = np.eye(p.shape[1])[batch["action"]]
    entropy = -(p * log_p).sum(-1, keepdims=True)
    d_logits = -batch["advantage"][:, None] * (chosen - p)
    d_logits = (d_logits + entropy_coefficient * p * (log_p + entropy)) / size
    d_value = value_coefficient * (value - batch["target"]) / size
    return {
        "actor_w": x.T @ d_logits, "actor_b": d_logits.sum(0),
        "critic_w": (x.T @ d_value)[:, None], "critic_b": d_value.sum(0, keepdims=True),
    }  # fmt: skip


def clipped(grads, max_norm):
    """All gradients scaled down to a global norm of at most `max_norm`."""
    norm = np.sqrt(sum((g**2).sum() for g in grads.values()))
    return {k: g * min(1.0, max_norm / norm) for k, g in grads.items()}


def rmsprop(params, grads, second, rate, decay, epsilon):
    """One step; returns parameters and running squares."""
    second = {k: decay * second[k] + (1 - decay) * g**2 for k, g in grads.items()}
    step = {k: rate * g / (np.sqrt(second[k]) + epsilon) for k, g in grads.items()}
    return {k: params[k] - step[k] for k in params}, second


def vtrace(
    rewards, values, next_values, terminated, truncated, rhos, gamma, rho_bar, c_bar, lambda_
):  # fmt: skip
    """Targets and advantages `[T, N]` as sums over the steps that follow (equation 1)."""
    steps, envs = rewards.shape
    targets, advantages = np.zeros((2, steps, envs))
    rho, c = np.minimum(rho_bar, rhos), lambda_ * np.minimum(c_bar, rhos)
    beyond = gamma * np.where(terminated, 0.0, next_values)
    for n in range(envs):
        for t in range(steps):
            total, weight = 0.0, 1.0
            for u in range(t, steps):
                total += weight * rho[u, n] * (rewards[u, n] + beyond[u, n] - values[u, n])
                if terminated[u, n] or truncated[u, n]:
                    break
                weight *= gamma * c[u, n]
            targets[t, n] = values[t, n] + total
    for n in range(envs):
        for t in range(steps):
            following = next_values[t, n]
            if t + 1 < steps and not (terminated[t, n] or truncated[t, n]):
                following = targets[t + 1, n]
            following = 0.0 if terminated[t, n] else following
            advantages[t, n] = rho[t, n] * (rewards[t, n] + gamma * following - values[t, n])
    return targets, advantages


def lambda_returns(rewards, next_values, terminated, truncated, gamma, lambda_):
    """`[T, N]`: the mean of the n-step returns with weights (1 - l) l^(n-1), written out."""
    steps, envs = rewards.shape
    result = np.zeros((steps, envs))
    for n in range(envs):
        for t in range(steps):
            total, weight, discounted = 0.0, 1.0, 0.0
            for u in range(t, steps):
                discount = gamma ** (u - t)
                discounted += discount * rewards[u, n]
                bootstrap = 0.0 if terminated[u, n] else gamma * discount * next_values[u, n]
                last = u == steps - 1 or terminated[u, n] or truncated[u, n]
                share = weight if last else weight * (1 - lambda_)
                total += share * (discounted + bootstrap)
                if last:
                    break
                weight *= lambda_
            result[t, n] = total
    return result


def radam_step(grads, first, second, count, rate):
    """The change of RAdam (Liu et al. 2020, algorithm 2) in its step `count`, from 1; 5 is the
    least length of the average from which the variance is used."""
    first = {k: 0.9 * first[k] + 0.1 * g for k, g in grads.items()}
    second = {k: 0.999 * second[k] + 0.001 * g**2 for k, g in grads.items()}
    longest = 2 / (1 - 0.999) - 1
    length = longest - 2 * count * 0.999**count / (1 - 0.999**count)
    mean = {k: m / (1 - 0.9**count) for k, m in first.items()}
    if length >= 5:
        r = np.sqrt((length - 4) * (length - 2) * longest
                    / ((longest - 4) * (longest - 2) * length))  # fmt: skip
        root = {k: np.sqrt(v / (1 - 0.999**count)) + 1e-8 for k, v in second.items()}
        mean = {k: r * mean[k] / root[k] for k in mean}
    return {k: -rate * m for k, m in mean.items()}, first, second


def q_gradient(params, x, action, target):
    """The gradient of mean[(Q(x, a) - target)^2 / 2] of the linear action values `x w + b`."""
    chosen = np.eye(params["w"].shape[1])[action]
    error = ((x @ params["w"] + params["b"]) * chosen).sum(-1) - target
    d = chosen * error[:, None] / len(x)
    return {"w": x.T @ d, "b": d.sum(0)}
