"""PPO's update written out in float64 NumPy, for a linear actor and critic."""

import numpy as np


def gae(reward, value, next_value, terminated, truncated, gamma, lambda_):
    """Advantages `[T, N]` as the plain sum of discounted errors up to the end of the episode."""
    steps, envs = reward.shape
    done = terminated | truncated
    delta = reward + gamma * np.where(terminated, 0.0, next_value) - value
    advantage = np.zeros((steps, envs))
    for n in range(envs):
        for t in range(steps):
            weight = 1.0
            for u in range(t, steps):
                advantage[t, n] += weight * delta[u, n]
                if done[u, n]:
                    break
                weight *= gamma * lambda_
    return advantage


def softmax_policy(params, x):
    """Log-probabilities `[B, A]` and values `[B]` of the linear actor and critic."""
    logits = x @ params["actor_w"] + params["actor_b"]
    logits = logits - logits.max(-1, keepdims=True)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return log_p, x @ params["critic_w"][:, 0] + params["critic_b"][0]


def gradient(params, batch, hparams):
    """The gradient of PPO's loss on `batch`, derived by hand."""
    x, action = batch["observation"], batch["action"]
    size = len(x)
    log_p, value = softmax_policy(params, x)
    p = np.exp(log_p)
    chosen = np.eye(p.shape[1])[action]
    log_prob = (log_p * chosen).sum(-1)
    ratio = np.exp(log_prob - batch["log_prob"])
    advantage = batch["advantage"]
    advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    clipped = np.clip(ratio, 1 - hparams["clip"], 1 + hparams["clip"])
    flows = ratio * advantage <= clipped * advantage  # where the unclipped term is the minimum
    # -d min(...)/d log_prob, through log-softmax; entropy's gradient is -p (log p + H)
    d_log_prob = -np.where(flows, ratio * advantage, 0.0) / size
    d_logits = d_log_prob[:, None] * (chosen - p)
    entropy = -(p * log_p).sum(-1, keepdims=True)
    d_logits -= hparams["entropy"] * (-p * (log_p + entropy)) / size
    d_value = hparams["value"] * (value - batch["target"]) / size
    return {
        "actor_w": x.T @ d_logits, "actor_b": d_logits.sum(0),
        "critic_w": (x.T @ d_value)[:, None], "critic_b": d_value.sum(0, keepdims=True),
    }  # fmt: skip


def adam_steps(params, batch, hparams, count):
    """`count` full-batch steps of Adam (epsilon 1e-5) with clipping of the global norm."""
    params = {k: v.copy() for k, v in params.items()}
    first = {k: np.zeros_like(v) for k, v in params.items()}
    second = {k: np.zeros_like(v) for k, v in params.items()}
    for i in range(1, count + 1):
        grads = gradient(params, batch, hparams)
        norm = np.sqrt(sum((g**2).sum() for g in grads.values()))
        scale = min(1.0, hparams["max_grad_norm"] / norm)
        for k, g in grads.items():
            first[k] = 0.9 * first[k] + 0.1 * scale * g
            second[k] = 0.999 * second[k] + 0.001 * (scale * g) ** 2
            mean, root = first[k] / (1 - 0.9**i), np.sqrt(second[k] / (1 - 0.999**i))
            params[k] -= hparams["learning_rate"] * mean / (root + 1e-5)
    return params
