"""Streaming learners in float64 NumPy: optimisers, a network with its gradient, statistics."""

import dataclasses
from typing import Any

import numpy as np

GAMMA, DECAY = 0.99, 0.99 * 0.8
MARGIN = 2e-3  # within which float32 may decide otherwise: which side of 0, which action is best


def single(x: float) -> float:
    """The number that float32 holds for `x`."""
    return float(np.float32(x))


class Optimizer:
    """One of the optimisers on a flat vector; `step` gives the vector to add."""

    def __init__(self, name: str, size: int, *, policy: bool = False, **numbers: float):
        self.name, self.policy = name, policy
        self.n = {
            "learning_rate": 1.0, "kappa": 2.0, "step_size": 3e-4, "eta": 0.25, "clip": 20.0,
            "second_decay": 0.999, "peak_decay": 0.99995, "clip_decay": 0.9998, "decay": DECAY,
        } | numbers  # fmt: skip
        self.z, self.m, self.mean = np.zeros(size), np.zeros(size), np.zeros(size)
        self.k, self.sigma, self.c, self.a = 0, 0.0, 1.0, 0.0

    def step(self, g: np.ndarray, delta: float, reset: bool) -> np.ndarray:
        self.k += 1
        before = self.z
        self.z = self.n["decay"] * before + g
        update = getattr(self, f"_{self.name}")(g, delta)
        if reset:
            self.z = np.zeros_like(self.z)
        return update

    def _bounded(self, z: np.ndarray, delta: float) -> np.ndarray:
        alpha = self.n["learning_rate"]
        bound = alpha * self.n["kappa"] * max(abs(delta), 1.0) * np.abs(z).sum()
        return (alpha / bound if bound > 1 else alpha) * delta * z

    def _obgd(self, g: np.ndarray, delta: float) -> np.ndarray:
        return self._bounded(self.z, delta)

    def _adaptive_obgd(self, g: np.ndarray, delta: float) -> np.ndarray:
        beta = self.n["second_decay"]
        self.m = beta * self.m + (1 - beta) * (delta * self.z) ** 2
        return self._bounded(self.z / np.sqrt(self.m / (1 - beta**self.k) + 1e-8), delta)

    def _streaming(self, g: np.ndarray, delta: float) -> np.ndarray:
        self.m = np.maximum(self.n["peak_decay"] * self.m, np.abs(delta * self.z))
        return self.n["step_size"] * delta * self.z / (self.m + 1e-8)

    def _sgd(self, g: np.ndarray, delta: float) -> np.ndarray:
        return self.n["learning_rate"] * delta * self.z

    def _adam(self, g: np.ndarray, delta: float) -> np.ndarray:
        beta, u = self.n["second_decay"], delta * self.z
        self.mean, self.m = 0.9 * self.mean + 0.1 * u, beta * self.m + (1 - beta) * u**2
        mean, root = self.mean / (1 - 0.9**self.k), np.sqrt(self.m / (1 - beta**self.k))
        return self.n["learning_rate"] * mean / (root + 1e-8)

    def _intentional(self, g: np.ndarray, delta: float) -> np.ndarray:
        beta, q, slow = self.n["second_decay"], self.n["decay"], self.n["clip_decay"]
        self.m = beta * self.m + (1 - beta) * g**2
        d = 1 / (np.sqrt(self.m / (1 - beta**self.k)) + 1e-8)
        self.sigma += (1 - q) * ((g**2 * d).sum() - self.sigma)
        strength = self.sigma / (1 - q**self.k)
        step = self.n["eta"] / max(np.sqrt(strength * (self.z**2 * d).sum()), 1e-8)
        self.c = slow * self.c + (1 - slow) * delta**2
        limit = self.n["clip"] * np.sqrt(self.c / (1 - slow**self.k))
        used = np.clip(delta, -limit, limit)
        if self.policy:
            self.a = slow * self.a + (1 - slow) * abs(used)
            used = used / max(self.a / (1 - slow**self.k), 1e-12)
        return step * used * d * self.z


class Network:
    """Dense layers with LayerNorm and LeakyReLU; its parameters are those of fastrl, flat."""

    def __init__(self, params: Any):
        self.hidden = [[np.asarray(x, np.float64) for x in layer] for layer in params.hidden]
        self.heads = [[np.asarray(x, np.float64) for x in layer] for layer in params.heads]

    def flat(self) -> np.ndarray:
        return np.concatenate([x.ravel() for layer in self.hidden + self.heads for x in layer])

    def add(self, update: np.ndarray) -> None:
        at = 0
        for layer in self.hidden + self.heads:
            for i, x in enumerate(layer):
                layer[i] = x + update[at : at + x.size].reshape(x.shape)
                at += x.size

    def forward(self, x: np.ndarray, like: Any = None) -> tuple[list[np.ndarray], Any]:
        """The heads' outputs, and what `backward` needs.

        A unit within MARGIN of 0 is on the side of it where it is in the tape of `like`.
        """
        tape = []
        for i, (kernel, bias) in enumerate(self.hidden):
            pre = x @ kernel + bias
            centred = pre - pre.mean()
            root = np.sqrt((centred**2).mean() + 1e-5)
            normal = centred / root
            positive = normal > 0
            if like is not None:
                positive = np.where(np.abs(normal) < MARGIN, like[0][i][3], positive)
            tape.append((x, normal, root, positive))
            x = np.where(positive, 1.0, 0.01) * normal
        return [x @ kernel + bias for kernel, bias in self.heads], (tape, x)

    def backward(self, saved: Any, cotangents: list[np.ndarray]) -> np.ndarray:
        """The gradient of the sum of outputs times cotangents, flat."""
        tape, x = saved
        heads = [[np.outer(x, c), c] for c in cotangents]
        back = sum(kernel @ c for (kernel, _), c in zip(self.heads, cotangents, strict=True))
        hidden: list[list[np.ndarray]] = []
        for (kernel, _), saved in zip(self.hidden[::-1], tape[::-1], strict=True):
            x, normal, root, positive = saved
            d = np.where(positive, 1.0, 0.01) * back
            d = (d - d.mean() - normal * (d * normal).mean()) / root
            hidden.insert(0, [np.outer(x, d), d])
            back = kernel @ d
        return np.concatenate([g.ravel() for layer in hidden + heads for g in layer])


def greedy(q: np.ndarray, like: np.ndarray) -> int:
    """The best action; of those within MARGIN of it, what is best in `like`."""
    best, theirs = int(q.argmax()), int(like.argmax())
    return theirs if q[best] - q[theirs] < MARGIN else best


class Statistics:
    """Welford as the sheet has it: a mean and a sum of squares."""

    def __init__(self, shape: tuple[int, ...] = ()):
        self.n, self.mean, self.p = 0, np.zeros(shape), np.zeros(shape)

    def add(self, x: Any, centred: bool = True) -> None:
        self.n += 1
        old = self.mean
        if centred:
            self.mean = old + (x - old) / self.n
            self.p = self.p + (x - old) * (x - self.mean)
        else:
            self.p = self.p + x**2 * (1 - 1 / self.n)

    @property
    def root(self) -> Any:
        return np.sqrt((1.0 if self.n < 2 else self.p / (self.n - 1)) + 1e-8)


@dataclasses.dataclass
class Seen:
    """What normalises one stream; `config` is a `config.Config`."""

    config: Any
    size: int
    time_limit: float

    def __post_init__(self) -> None:
        self.observations, self.rewards = Statistics((self.size,)), Statistics()
        self.u = 0.0

    def observe(self, observation: np.ndarray, steps: int) -> np.ndarray:
        x = np.asarray(observation, np.float64)
        if self.config.normalize_observation:
            self.observations.add(x)
            x = (x - self.observations.mean) / self.observations.root
        if self.config.time_feature:
            x = np.append(x, -0.5 + max(steps - 1, 0) / self.time_limit)
        return x

    def scale(self, reward: float, terminated: bool, truncated: bool) -> float:
        if not self.config.scale_reward:
            return reward
        how = self.config.reward_trace
        ended = terminated if how == "cut_terminated" else terminated or truncated
        before = self.u if how == "cleared" else self.u * (not ended)
        self.u = GAMMA * before + reward
        self.rewards.add(self.u, centred=not self.config.second_moment)
        scaled = reward / self.rewards.root
        if how == "cleared" and ended:
            self.u = 0.0
        return scaled

    def ends(self, terminated: bool, truncated: bool) -> tuple[float, bool]:
        """The discount of what follows, and whether the trace is cleared."""
        done = terminated or truncated
        nothing = done if self.config.truncation == "ends" else terminated
        clears = terminated if self.config.truncation == "continues" else done
        return GAMMA * (not nothing), clears
