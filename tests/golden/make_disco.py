"""Writes disco.npz: two updates of DiscoRL's released rule, on random numbers, at small sizes.

Needs github.com/google-deepmind/disco_rl (9059a29) on the path, and its requirements:
    PYTHONPATH=disco_rl python make_disco.py
"""

# pyright: reportMissingImports=false

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from disco_rl import types
from disco_rl.update_rules import disco
from ml_collections import config_dict

T, N, A, K, BINS, BOUND = 5, 3, 4, 6, 11, 3.0
SIZES = {"hidden_size": 7, "embedding_size": (5, 1), "policy_target_channels": (16,),
         "policy_channels": (16, 2)}  # fmt: skip
META = {"policy_channels": (16, 2), "embedding_size": (16,), "pred_embedding_size": (5, 1),
        "hidden_size": 8}  # fmt: skip
HPARAMS = {"pi_cost": 1.0, "y_cost": 0.7, "z_cost": 0.6, "value_cost": 0.2, "aux_policy_cost": 0.9,
           "target_params_coeff": 0.9, "value_fn_td_lambda": 0.95}  # fmt: skip


def rule():
    net = config_dict.ConfigDict(
        SIZES | {"name": "lstm", "prediction_size": K, "meta_rnn_kwargs": META,
                 "input_option": disco.get_input_option()}
    )  # fmt: skip
    return disco.DiscoUpdateRule(net, 0.97, BOUND, BINS)


def outputs(draw):
    """What an agent says in T + 1 states."""
    normal = lambda *shape: draw.randn(T + 1, N, *shape).astype(np.float32)  # noqa: E731
    return {"logits": normal(A), "y": normal(K), "z": normal(A, K), "q": normal(A, BINS),
            "aux_pi": normal(A, A)}  # fmt: skip


def main() -> None:
    draw = np.random.RandomState(0)
    update_rule = rule()
    shapes, _ = update_rule.init_params(jax.random.PRNGKey(0))
    wide = lambda x: 0.5 * draw.randn(*x.shape).astype(np.float32)  # noqa: E731
    eta = jax.tree.map(wide, shapes)
    kept = {f"eta/{layer}/{k}": x for layer, leaves in eta.items() for k, x in leaves.items()}
    state = update_rule.init_meta_state(jax.random.PRNGKey(0), {})
    for update in range(2):
        online, target, behaviour = (outputs(draw) for _ in range(3))
        rollout = types.UpdateRuleInputs(
            observations=np.zeros((T + 1, N)), actions=draw.randint(A, size=(T + 1, N)),
            rewards=(3 * draw.randn(T, N)).astype(np.float32), is_terminal=draw.rand(T, N) < 0.25,
            agent_out=online, behaviour_agent_out=behaviour,
        )  # fmt: skip
        given = {"online": online, "target": target, "behaviour": behaviour}
        kept |= {f"{update}/{n}/{k}": x for n, o in given.items() for k, x in o.items()}
        for name in ("actions", "rewards", "is_terminal"):
            kept[f"{update}/{name}"] = getattr(rollout, name)
        said, state = update_rule.unroll_meta_net(
            eta, {}, {}, state, rollout, HPARAMS, lambda *_, t=target: (t, None), None
        )
        first, _ = update_rule.agent_loss(rollout, said, HPARAMS, backprop=False)
        second, _ = update_rule.agent_loss_no_meta(rollout, said, HPARAMS)
        told = {k: said[k] for k in ("pi", "y", "z", "q_target", "adv", "normalized_adv")}
        kept |= {f"{update}/{k}": np.asarray(x) for k, x in told.items()}
        kept[f"{update}/loss"] = np.asarray(first + second)
        memory = jax.tree.leaves(state["rnn_state"])
        kept |= {f"{update}/memory{i}": np.asarray(jnp.ravel(x)) for i, x in enumerate(memory)}
    np.savez_compressed(pathlib.Path(__file__).parent / "disco.npz", **kept)


if __name__ == "__main__":
    main()
