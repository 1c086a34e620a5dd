"""PPO in one file of PyTorch with Gymnasium's environments: how most people still train.

Written for this benchmark after the description of the algorithm in "The 37 implementation
details of PPO" (Huang et al. 2022); environments step one after the other in this process.
"""

# Peers are installed in environments of their own.
# pyright: reportMissingImports=false

import itertools
from collections import deque
from typing import Any

import gymnasium
import numpy as np
import torch
import worker
from torch import nn
from torch.distributions import Categorical


def layer(inputs: int, outputs: int, scale: float = 2**0.5) -> nn.Linear:
    """A dense layer with orthogonal weights and no bias to start with."""
    made = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(made.weight, scale)
    nn.init.zeros_(made.bias)
    return made


def mlp(sizes: list[int], activation: type[nn.Module], last_scale: float) -> nn.Sequential:
    """Dense layers from `sizes[0]` inputs to `sizes[-1]` outputs."""
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(sizes[:-1]):
        layers += [layer(inputs, outputs), activation()]
    return nn.Sequential(*layers, layer(sizes[-2], sizes[-1], last_scale))


class Learner:
    """One training: networks, optimiser, environments, and where they stand."""

    def __init__(self, settings: dict[str, Any]) -> None:
        torch.manual_seed(settings["seed"])
        self.settings, self.h, n = settings, settings["hparams"], settings["num_envs"]
        self.envs = gymnasium.vector.SyncVectorEnv(
            [lambda: gymnasium.make(settings["env"])] * n,
            autoreset_mode=gymnasium.vector.AutoresetMode.SAME_STEP,
        )
        inputs = int(np.prod(self.envs.single_observation_space.shape or ()))
        actions = int(self.envs.single_action_space.n)  # type: ignore[attr-defined]
        activation = {"tanh": nn.Tanh, "relu": nn.ReLU, "swish": nn.SiLU}[settings["activation"]]
        hidden = list(settings["hidden_sizes"])
        self.actor = mlp([inputs, *hidden, actions], activation, 0.01)
        self.critic = mlp([inputs, *hidden, 1], activation, 1.0)
        self.weights = [*self.actor.parameters(), *self.critic.parameters()]
        self.optimizer = torch.optim.Adam(self.weights, lr=self.h["learning_rate"], eps=1e-5)
        self.observation = self._tensor(self.envs.reset(seed=settings["seed"])[0])
        self.running, self.returns = np.zeros(n), deque(maxlen=100)

    @staticmethod
    def _tensor(x: Any) -> torch.Tensor:
        return torch.as_tensor(np.asarray(x), dtype=torch.float32)

    def iterate(self) -> None:
        """A rollout, its advantages, and the passes over it."""
        batch, rewards, ends, last_value = self._collect()
        observation, action, log_prob, value = batch
        advantage = self._advantages(rewards, ends, value, last_value)
        flat = observation.flatten(0, 1), action.flatten(), log_prob.flatten(), value.flatten()
        self._update(*flat, advantage.flatten(), (advantage + value).flatten())

    @torch.no_grad()
    def _collect(self) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor, torch.Tensor]:
        kept: list[list[torch.Tensor]] = [[], [], [], []]
        rewards, ends = [], []
        for _ in range(self.settings["num_steps"]):
            policy = Categorical(logits=self.actor(self.observation))
            action = policy.sample()
            value = self.critic(self.observation)[:, 0]
            now = self.observation, action, policy.log_prob(action), value
            for store, x in zip(kept, now, strict=True):
                store.append(x)
            observation, reward, terminated, truncated, _ = self.envs.step(action.numpy())
            done = terminated | truncated
            self._count(reward, done)
            rewards.append(self._tensor(reward))
            ends.append(self._tensor(done))
            self.observation = self._tensor(observation)
        last_value = self.critic(self.observation)[:, 0]
        return [torch.stack(x) for x in kept], torch.stack(rewards), torch.stack(ends), last_value

    def _count(self, reward: np.ndarray, done: np.ndarray) -> None:
        self.running += reward
        self.returns.extend(self.running[done])
        self.running[done] = 0.0

    def _advantages(
        self, rewards: torch.Tensor, ends: torch.Tensor, values: torch.Tensor, last: torch.Tensor
    ) -> torch.Tensor:
        advantage, following = torch.zeros_like(last), last
        advantages = torch.zeros_like(rewards)
        for t in reversed(range(len(rewards))):
            going = 1.0 - ends[t]
            delta = rewards[t] + self.h["gamma"] * going * following - values[t]
            advantage = delta + self.h["gamma"] * self.h["gae_lambda"] * going * advantage
            advantages[t], following = advantage, values[t]
        return advantages

    def _update(self, *batch: torch.Tensor) -> None:
        size = len(batch[0]) // self.settings["num_minibatches"]
        for _ in range(self.settings["num_epochs"]):
            order = torch.randperm(len(batch[0]))
            for start in range(0, len(order), size):
                index = order[start : start + size]
                loss = self._loss(*(x[index] for x in batch))
                self.optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(self.weights, self.h["max_grad_norm"])
                self.optimizer.step()

    def _loss(
        self, observation: torch.Tensor, action: torch.Tensor, log_prob: torch.Tensor,
        value: torch.Tensor, advantage: torch.Tensor, target: torch.Tensor,
    ) -> torch.Tensor:  # fmt: skip
        clip = self.h["clip"]
        policy = Categorical(logits=self.actor(observation))
        ratio = (policy.log_prob(action) - log_prob).exp()
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        gain = torch.min(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)
        predicted = self.critic(observation)[:, 0]
        near = value + (predicted - value).clamp(-clip, clip)
        error = torch.max((predicted - target) ** 2, (near - target) ** 2)
        entropy = self.h["entropy_coefficient"] * policy.entropy().mean()
        return -gain.mean() + self.h["value_coefficient"] * 0.5 * error.mean() - entropy


def main(settings: dict[str, Any]) -> None:
    """Serves rounds of `steps` environment steps; the return is that of the last 100 episodes."""
    learner = Learner(settings)
    per_iteration = settings["num_envs"] * settings["num_steps"]
    iterations = max(1, settings["steps"] // per_iteration)

    def part() -> None:
        for _ in range(iterations):
            learner.iterate()

    def round_() -> dict[str, Any]:
        _, spent = worker.timed(part)
        mean = float(np.mean(learner.returns)) if learner.returns else None
        return {"steps": iterations * per_iteration, "return": mean, **spent}

    round_()
    versions = worker.versions("torch", "gymnasium", "numpy")
    worker.serve(round_, compile_seconds=0.0, versions=versions)
