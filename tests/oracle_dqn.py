"""DQN's update in float64 NumPy, its gradients by hand, for a network of one linear layer.

Plain loops where there is room for doubt.  `switches` are the fields of `dqn.Config`.
"""

import copy

import numpy as np


def outputs(params, observation, switches, num_actions):
    """`[B, A, K]`."""
    head = params["head"]
    advantage = observation @ head["advantage"]["kernel"] + head["advantage"]["bias"]
    advantage = advantage.reshape(len(observation), num_actions, -1)
    if not switches.get("dueling"):
        return advantage
    value = observation @ head["value"]["kernel"] + head["value"]["bias"]
    return value[:, None] + advantage - advantage.mean(1, keepdims=True)


def softmax(x, axis=-1):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def mean(out, switches, h):
    if switches.get("distribution", "none") == "categorical":
        return softmax(out) @ np.linspace(h["value_min"], h["value_max"], out.shape[-1])
    return out.mean(-1)


def projected(probabilities, places, low, high):
    """Algorithm 1 of Bellemare et al. 2017, mass by mass; a place on an atom keeps its own."""
    count = len(probabilities)
    width, result = (high - low) / (count - 1), np.zeros(count)
    for p, z in zip(probabilities, places, strict=True):
        b = (min(max(z, low), high) - low) / width
        lower = min(int(np.floor(b + 1e-9)), count - 1)
        part = max(b - lower, 0.0)
        result[lower] += p * (1.0 - part)
        if part > 0.0:
            result[min(lower + 1, count - 1)] += p * part
    return result


def target(online, frozen, batch, switches, h, num_actions):
    """`[B, K]`."""
    after = outputs(frozen, batch["next_observation"], switches, num_actions)
    reward, discount = batch["reward"].copy(), batch["discount"]
    follows = []
    for i in range(len(reward)):
        z = after[i]
        if switches.get("munchausen"):
            temperature = h["temperature"]
            now = outputs(frozen, batch["observation"][i : i + 1], switches, num_actions)
            policy = softmax(mean(now, switches, h)[0] / temperature)
            log_policy = temperature * np.log(policy[batch["action"][i]])
            reward[i] += h["munchausen_scale"] * np.clip(log_policy, h["log_policy_min"], 0.0)
            policy = softmax(mean(z, switches, h) / temperature)
            soft = [p * (za - temperature * np.log(p)) for p, za in zip(policy, z, strict=True)]
            follows.append(np.sum(soft, 0))
            continue
        judge = z
        if switches.get("double"):
            judge = outputs(online, batch["next_observation"][i : i + 1], switches, num_actions)[0]
        follows.append(z[np.argmax(mean(judge, switches, h))])
    follows = np.stack(follows)
    places = reward[:, None] + discount[:, None] * follows
    if switches.get("distribution", "none") != "categorical":
        return places
    low, high, count = h["value_min"], h["value_max"], follows.shape[-1]
    atoms, p = np.linspace(low, high, count), softmax(follows)
    return np.stack([
        projected(p[i], reward[i] + discount[i] * atoms, low, high) for i in range(len(reward))
    ])  # fmt: skip


def loss_gradient(chosen, goal, switches, h):
    """Of a sample's loss by the outputs of the action that was taken, `[B, K]`; and |error|."""
    kind = switches.get("distribution", "none")
    if kind == "categorical":
        p = softmax(chosen)
        safe = np.where(goal > 0, goal, 1.0)
        divergence = (goal * (np.log(safe) - np.log(p))).sum(-1)
        return p - goal, divergence
    if kind == "none":
        error = (chosen - goal)[:, 0]
        return 2.0 * np.clip(error, -h["huber"], h["huber"])[:, None], np.abs(error)
    count, kappa = chosen.shape[-1], h["kappa"]
    gradient, losses = np.zeros_like(chosen), np.zeros(len(chosen))
    for b in range(len(chosen)):
        for i in range(count):
            for j in range(count):
                u = goal[b, j] - chosen[b, i]
                weight = abs((2 * i + 1) / (2 * count) - (u < 0))
                size = abs(u)
                value = u * u / 2 if size <= kappa else kappa * (size - kappa / 2)
                losses[b] += weight * value / kappa / count
                gradient[b, i] -= weight * np.clip(u, -kappa, kappa) / kappa / count
    return gradient, losses


def gradient(params, goal, batch, switches, h, num_actions):
    """Of the batch's loss by the parameters."""
    x, count = batch["observation"], len(batch["reward"])
    out = outputs(params, x, switches, num_actions)
    rows = np.arange(count)
    inner, error = loss_gradient(out[rows, batch["action"]], goal, switches, h)
    by_output = np.zeros_like(out)
    by_output[rows, batch["action"]] = batch["weight"][:, None] * inner / count
    if switches.get("optimism", "none") != "none":
        values = mean(out, switches, h)
        by_value = softmax(values)  # of log-sum-exp
        if switches["optimism"] == "gap":
            by_value = np.eye(num_actions)[values.argmax(-1)] - by_value
        by_output -= h["eta"] * by_value[..., None] / out.shape[-1] / count
    head = {}
    by_advantage = by_output
    if switches.get("dueling"):
        by_value = by_output.sum(1)
        head["value"] = {"kernel": x.T @ by_value, "bias": by_value.sum(0)}
        by_advantage = by_output - by_output.mean(1, keepdims=True)
    flat = by_advantage.reshape(count, -1)
    head["advantage"] = {"kernel": x.T @ flat, "bias": flat.sum(0)}
    return {"head": head}, error


def leaves(params):
    head = params["head"]
    return [head[layer][name] for layer in sorted(head) for name in ("bias", "kernel")]


def run(params, batches, switches, h, num_actions):
    """Parameters, target parameters and errors after an update on each of `batches`."""
    online, frozen, errors = copy.deepcopy(params), copy.deepcopy(params), []
    first = [np.zeros_like(x) for x in leaves(online)]
    second = [np.zeros_like(x) for x in leaves(online)]
    for t, batch in enumerate(batches, 1):
        goal = target(online, frozen, batch, switches, h, num_actions)
        grads, error = gradient(online, goal, batch, switches, h, num_actions)
        errors.append(error)
        for x, g, m, v in zip(leaves(online), leaves(grads), first, second, strict=True):
            m += 0.1 * (g - m)
            v += 0.001 * (g * g - v)
            step = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-5)
            x -= h["learning_rate"] * step
        if t % h["target_period"] == 0:
            for x, y in zip(leaves(frozen), leaves(online), strict=True):
                x += h["tau"] * (y - x)
    return online, frozen, errors
