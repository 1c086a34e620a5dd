"""Networks of flax.linen: torsos, heads, and the actor-critic that most learners use."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fastrl import distributions, door, initializers, spaces
from fastrl.convolution import convolutions
from fastrl.distributions import Distribution
from fastrl.kernels import mlp
from fastrl.spaces import Box, Discrete, MultiDiscrete, Space
from fastrl.types import Array, Key, Observation

Activation = Literal["tanh", "relu", "swish", "elu", "gelu"]
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "tanh": nn.tanh, "relu": nn.relu, "swish": nn.swish, "elu": nn.elu, "gelu": nn.gelu,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
    """The shape of an actor-critic."""

    hidden_sizes: tuple[int, ...] = (64, 64)
    activation: Activation = "tanh"
    torso: Literal["mlp", "conv"] = "mlp"  # conv: one image, a 3x3 layer before the dense ones
    conv_features: tuple[int, ...] = (16,)
    shared_torso: bool = False  # one torso under both heads, or one for each
    layer_norm: bool = False  # before each activation
    fused_mlp: bool = False  # dense layers by kernels on all cores of a CPU, see `_fused`

    def __post_init__(self) -> None:
        for name in ("hidden_sizes", "conv_features"):
            sizes = getattr(self, name)
            if not isinstance(sizes, (tuple, list)) or not all(map(_is_size, sizes)):
                raise ValueError(f"{name}={sizes!r}: needs a tuple of positive integers")
            object.__setattr__(self, name, tuple(sizes))
        door.choice("activation", self.activation, tuple(ACTIVATIONS))
        door.choice("torso", self.torso, ("mlp", "conv"))
        if self.fused_mlp:
            self._check_fused()

    def _check_fused(self) -> None:
        fits = {
            "activation": self.activation in mlp.ACTIVATIONS,
            "torso": self.torso == "mlp",
            "shared_torso": not self.shared_torso,
        }
        wrong = [f"{name}={getattr(self, name)!r}" for name, ok in fits.items() if not ok]
        if wrong:
            raise ValueError(
                f"fused_mlp=true does not go with {', '.join(wrong)}: it needs torso='mlp', no "
                f"shared_torso, and {' or '.join(mlp.ACTIVATIONS)} as activation"
            )
        if any(n % mlp.LANES or n > mlp.WIDEST for n in self.hidden_sizes):
            raise ValueError(
                f"fused_mlp=true: hidden_sizes={self.hidden_sizes} must be multiples of "
                f"{mlp.LANES} and at most {mlp.WIDEST}"
            )


def _is_size(n: Any) -> bool:
    return isinstance(n, int) and not isinstance(n, bool) and n > 0


class Torso(nn.Module):
    """Dense layers, after convolutions if the config says so. `[..., *input] -> [..., H]`."""

    config: NetworkConfig
    dot_general: Callable[..., Array] = jax.lax.dot_general  # of the dense layers

    @nn.compact
    def __call__(self, x: Array) -> Array:
        activation = ACTIVATIONS[self.config.activation]
        init = initializers.orthogonal(np.sqrt(2))
        if self.config.torso == "conv":
            x = convolutions(x, self.config.conv_features, activation, self.config.layer_norm)
        for size in self.config.hidden_sizes:
            x = nn.Dense(size, kernel_init=init, dot_general=self.dot_general)(x)
            x = activation(nn.LayerNorm()(x) if self.config.layer_norm else x)
        return x


class _Network(nn.Module):
    """Outputs of the policy head, log standard deviations, value."""

    config: NetworkConfig
    num_outputs: int
    continuous: bool

    def setup(self) -> None:
        self.actor_torso = Torso(self.config)
        if not self.config.shared_torso:
            self.critic_torso = Torso(self.config)
        self.actor_head = nn.Dense(self.num_outputs, kernel_init=initializers.orthogonal(0.01))
        self.critic_head = nn.Dense(1, kernel_init=initializers.orthogonal(1.0))
        if self.continuous:
            self.log_std = self.param("log_std", nn.initializers.zeros, (self.num_outputs,))

    def policy(self, x: Array) -> tuple[Array, Array | None]:
        log_std = self.log_std if self.continuous else None
        return self.actor_head(self.actor_torso(x)), log_std

    def value(self, x: Array) -> Array:
        torso = self.actor_torso if self.config.shared_torso else self.critic_torso
        return self.critic_head(torso(x))[..., 0]

    def __call__(self, x: Array, critic_x: Array) -> tuple[Array, Array | None, Array]:
        if not self.config.shared_torso:
            return *self.policy(x), self.value(critic_x)
        shared = self.actor_torso(x)
        log_std = self.log_std if self.continuous else None
        return self.actor_head(shared), log_std, self.critic_head(shared)[..., 0]


class ActorCritic(NamedTuple):
    """A policy and a value function of one observation; leading axes are the batch."""

    init: Callable[[Key], Any]  # (key) -> params
    apply: Callable[[Any, Observation], tuple[Distribution, Array]]  # -> policy, value [...]
    policy: Callable[[Any, Observation], Distribution]
    value: Callable[[Any, Observation], Array]


def actor_critic(
    observation_space: Space, action_space: Space, config: NetworkConfig = NetworkConfig()
) -> ActorCritic:
    """The actor-critic for these spaces; see `split_views` for masks and a critic's own view.

    Raises ValueError where a space does not fit the network, before anything is compiled.
    """
    actor_space, critic_space, _ = split_views(observation_space)
    if config.shared_torso and actor_space != critic_space:
        raise ValueError("shared_torso=true: a critic with a view of its own needs its own torso")
    image = config.torso == "conv"
    encode, encode_critic = encoder(actor_space, image), encoder(critic_space, image)
    continuous = isinstance(action_space, Box)
    network = _Network(config, distributions.num_outputs(action_space), continuous)

    outputs_of: Callable[..., Any] = _fused(network) if config.fused_mlp else network.apply

    def init(key: Key) -> Any:
        actor, critic, _ = split_views(spaces.zeros(observation_space))
        return network.init(key, encode(actor), encode_critic(critic))

    def apply(params: Any, observation: Observation) -> tuple[Distribution, Array]:
        actor, critic, mask = split_views(observation)
        outputs, log_std, value = outputs_of(params, encode(actor), encode_critic(critic))
        return distributions.from_outputs(action_space, outputs, log_std, mask), value

    def policy(params: Any, observation: Observation) -> Distribution:
        actor, _, mask = split_views(observation)
        outputs, log_std = outputs_of(params, encode(actor), method="policy")
        return distributions.from_outputs(action_space, outputs, log_std, mask)

    def value(params: Any, observation: Observation) -> Array:
        _, critic, _ = split_views(observation)
        return outputs_of(params, encode_critic(critic), method="value")

    return ActorCritic(init, apply, policy, value)


def _fused(network: _Network) -> Callable[..., Any]:
    """`network.apply` with the dense layers of policy and value as one operation, `kernels.mlp`.

    The kernels are numba's: they compile for some seconds, at every start, and are worth it where
    a training takes minutes.  On GPU and TPU it is what `network.apply` does.
    """
    activation = network.config.activation

    def through(params: Any, parts: Sequence[str], inputs: Sequence[Array]) -> list[Array]:
        networks = [layers(params[f"{part}_torso"], params[f"{part}_head"]) for part in parts]
        batch = inputs[0].shape[:-1]
        rows = [x.reshape(-1, x.shape[-1]) for x in inputs]
        outputs = mlp.apply(rows, networks, activation)
        return [y.reshape(*batch, y.shape[-1]) for y in outputs]

    def apply(variables: Any, *inputs: Array, method: str = "both") -> Any:
        params = variables["params"]
        if method == "value":
            return through(params, ["critic"], inputs)[0][..., 0]
        log_std = params.get("log_std")
        if method == "policy":
            return through(params, ["actor"], inputs)[0], log_std
        outputs, value = through(params, ["actor", "critic"], inputs)
        return outputs, log_std, value[..., 0]

    return apply


def layers(torso: Any, head: Any) -> list[tuple[Array, ...]]:
    """Those of a `Torso` and a dense layer, from input to output, as `kernels.mlp` takes them."""
    found = []
    for i in range(sum(name.startswith("Dense") for name in torso)):
        norm = torso.get(f"LayerNorm_{i}")
        dense = torso[f"Dense_{i}"]
        parts = (norm["scale"], norm["bias"]) if norm else ()
        found.append((dense["kernel"], dense["bias"], *parts))
    return [*found, (head["kernel"], head["bias"])]


def split_views(observation: Any) -> tuple[Any, Any, Any]:
    """The actor's view, the critic's view and the action mask of an observation or its space.

    An observation that is a record (dict or NamedTuple) may have a field `action_mask`, bool
    `[A]`, of the actions that are allowed, and a field `critic`, which only the critic sees;
    the rest is the actor's view, and the critic's too where there is no such field.
    """
    if hasattr(observation, "_asdict"):
        fields = observation._asdict()
    elif isinstance(observation, Mapping):
        fields = dict(observation)
    else:
        return observation, observation, None
    mask, critic = fields.pop("action_mask", None), fields.pop("critic", None)
    actor = next(iter(fields.values())) if len(fields) == 1 else fields
    return actor, actor if critic is None else critic, mask


def encoder(space: Space, image: bool = False) -> Callable[[Observation], Array]:
    """From an observation of `space` to the network's input.

    As one vector `[..., D]`: integers one-hot, arrays flattened, bytes divided by 255, all
    concatenated.  With `image` the one array of rank 3 keeps its shape `[..., H, W, C]`.
    """
    if image:
        if not isinstance(space, Box) or len(space.shape) != 3:
            raise ValueError(f"torso='conv' needs one Box of shape [H, W, C], not {space}")
        return lambda x: _scaled(space, x)
    leaves = jax.tree.leaves(space, is_leaf=spaces.is_leaf)

    def encode(observation: Observation) -> Array:
        parts = [_vector(s, x) for s, x in zip(leaves, jax.tree.leaves(observation), strict=True)]
        return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=-1)

    return encode


def _vector(space: Space, x: Array) -> Array:
    if isinstance(space, Discrete):
        return jax.nn.one_hot(x, space.n)
    if isinstance(space, MultiDiscrete):
        parts = [jax.nn.one_hot(x[..., i], n) for i, n in enumerate(space.nvec)]
        return jnp.concatenate(parts, axis=-1)
    return _scaled(space, x).reshape(*x.shape[: x.ndim - len(space.shape)], -1)


def _scaled(space: Box, x: Array) -> Array:
    return x.astype(jnp.float32) / (255.0 if space.dtype == np.uint8 else 1.0)
