"""Dense layers in numba: float64 oracles, transformations, threads, and PPO that trains with it."""

import itertools
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fastrl
from fastrl import metrics, networks, ppo, pqn, sac
from fastrl.kernels import _numba_ffi, mlp
from fastrl.q_network import q_network
from fastrl.spaces import Box, Discrete

SIZES = ((3, 16, 24, 5), (3, 8, 1))  # inputs, hidden layers, outputs of two networks


def layers(rng, sizes, norm=False):
    """Weights and biases, and with `norm` scale and shift of hidden layers."""
    found = []
    for k, n in itertools.pairwise(sizes):
        found.append((rng.normal(size=(k, n)) / np.sqrt(k), rng.normal(size=n)))
        if norm and len(found) < len(sizes) - 1:
            found[-1] += (1 + 0.3 * rng.normal(size=n), rng.normal(size=n))
    return found


def single(tree):
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree)


def case(rows, seed=0, sizes=SIZES):
    """Inputs, networks and weights of the outputs, in float64."""
    rng = np.random.default_rng(seed)
    inputs = [rng.normal(size=(rows, s[0])) for s in sizes]
    weights = [rng.normal(size=(rows, s[-1])) for s in sizes]
    return inputs, [layers(rng, s) for s in sizes], weights


def oracle(x, network, weight, activation):
    """Output, and the derivatives of its product with `weight` by input and layers, by hand."""
    act = {"tanh": np.tanh, "relu": lambda z: np.maximum(z, 0)}[activation]
    slope = {"tanh": lambda h: 1 - h**2, "relu": lambda h: h > 0}[activation]
    seen = [x]
    kept: list = [
        None
    ]  # of each input of a layer: what the norm before it gave, inverse deviations
    for i, (w, b, *norm) in enumerate(network):
        z = seen[-1] @ w + b
        if norm:
            inverse = 1 / np.sqrt(z.var(-1, keepdims=True) + mlp.EPSILON)
            kept.append(((z - z.mean(-1, keepdims=True)) * inverse, inverse))
            z = kept[-1][0] * norm[0] + norm[1]
        seen.append(z if i == len(network) - 1 else act(z))
    d, found, more = weight, [], ()
    for i in range(len(network) - 1, -1, -1):
        found.insert(0, (seen[i].T @ d, d.sum(0), *more))
        d = d @ network[i][0].T
        d = d * slope(seen[i]) if i else d
        if i and len(kept) > 1:
            z, inverse = kept[i]
            more, d = ((d * z).sum(0), d.sum(0)), d * network[i - 1][2]
            along = (d * z).mean(-1, keepdims=True)
            d = inverse * (d - d.mean(-1, keepdims=True) - along * z)
    return seen[-1], d, found


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("rows", [33, 512])
def test_outputs_and_derivatives_are_those_by_hand(rows, activation):
    """A row left out at the edge of a tile, block or group, a wrong slope, or a bias summed over
    the wrong rows: the derivative by some layer or by the input would be off."""
    inputs, nets, weights = case(rows)

    def total(inputs, nets):
        outputs = mlp.apply(inputs, nets, activation)
        weighted = zip(outputs, single(weights), strict=True)
        return sum((y * w).sum() for y, w in weighted), outputs

    assert mlp.serves(single(inputs), single(nets), activation)
    gradient = jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True))
    (_, outputs), (by_input, by_layers) = gradient(single(inputs), single(nets))
    for i, net in enumerate(nets):
        y, dx, dn = oracle(inputs[i], net, weights[i], activation)
        np.testing.assert_allclose(outputs[i], y, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(by_input[i], dx, rtol=1e-4, atol=1e-4)
        for got, want in zip(jax.tree.leaves(by_layers[i]), jax.tree.leaves(dn), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=2e-5 * rows)


@pytest.mark.parametrize("activation", ["relu", pytest.param("tanh", marks=pytest.mark.slow)])
def test_an_ensemble_with_norms_is_that_by_hand(activation):
    """A member would read another's layers, rows that are zero after a relu would be left out where
    they count (their derivatives, layers of more than a panel's 64 columns or rows, a last layer of
    many units), or the norm's derivative would lack a term."""
    rng, rows, sizes = np.random.default_rng(3), 70, (3, 72, 136, 2)
    nets, x = [layers(rng, sizes, norm=True) for _ in range(2)], rng.normal(size=(rows, 3))
    weight = rng.normal(size=(2, rows, 2))
    weight[0, :40] = 0.0
    stacked = single(jax.tree.map(lambda *leaves: np.stack(leaves), *nets))
    total = lambda x, n: (mlp.apply([x], [n], activation)[0] * single(weight)).sum()  # noqa: E731
    assert mlp.serves([single(x)], [stacked], activation)
    by_input, by_layers = jax.jit(jax.grad(total, (0, 1)))(single(x), stacked)
    want = [oracle(x, net, w, activation) for net, w in zip(nets, weight, strict=True)]
    np.testing.assert_allclose(by_input, want[0][1] + want[1][1], rtol=1e-3, atol=1e-4)
    for i in range(2):
        of_member = jax.tree.leaves(jax.tree.map(lambda leaf, i=i: leaf[i], by_layers))
        for got, by_hand in zip(of_member, jax.tree.leaves(want[i][2]), strict=True):
            np.testing.assert_allclose(got, by_hand, rtol=1e-3, atol=2e-3)


@pytest.mark.slow
def test_what_is_not_asked_for_makes_no_difference():
    """Derivatives by inputs alone, by layers alone and outputs alone come from kernels of their
    own, which would read other places; in a batch of programs too."""
    rng, sizes = np.random.default_rng(4), (5, 64, 96, 5)
    net, x = single(layers(rng, sizes, norm=True)), single(rng.normal(size=(2, 256, 5)))
    total = lambda x, n, apply: (apply([x], [n], "relu")[0] ** 2).sum()  # noqa: E731
    for wanted in ((0,), (1,)):
        pair = [
            jax.jit(jax.vmap(jax.grad(lambda x, n, a=apply: total(x, n, a), wanted), (0, None)))
            for apply in (mlp.apply, mlp.reference)
        ]
        got, want = (f(x, net) for f in pair)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-2), got, want)
    got, want = (jax.jit(lambda n, a=a: a([x[0]], [n], "relu")[0])(net)
                 for a in (mlp.apply, mlp.reference))  # fmt: skip
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_every_size_of_a_tile_and_of_the_last_layer():
    """Rows and units that fill no tile exactly; and tanh far from zero, where its formula ends."""
    for rows, outputs in ((32, 1), (34, 7), (35, 8), (37, 17), (38, 16), (39, 24)):
        inputs, nets, _ = case(rows, outputs, ((2, 8, outputs),))
        inputs = [20 * inputs[0]]
        (got,) = mlp.apply(single(inputs), single(nets), "tanh")
        np.testing.assert_allclose(got, oracle(inputs[0], nets[0], 0 * got, "tanh")[0], atol=1e-5)


@pytest.mark.slow
def test_vmap_scan_and_second_derivatives():
    """Members in a batch would read each other's weights; a gradient through an update, as in
    meta-learning, would be lost in the kernel."""
    inputs, nets, _ = case(32, sizes=((3, 8, 2),))
    x, net = single(inputs), single(nets)
    value = lambda n, apply: (apply(x, n, "tanh")[0] ** 2).mean()  # noqa: E731
    more = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf, -leaf]), net)
    both = [
        jax.jit(jax.vmap(jax.grad(lambda n, a=apply: value(n, a))))(more)
        for apply in (mlp.apply, mlp.reference)
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), *both)

    def after_a_step(n, apply):
        step = lambda n, _: (  # noqa: E731
            jax.tree.map(lambda p, g: p - 0.1 * g, n, jax.grad(value)(n, apply)), None
        )  # fmt: skip
        return value(jax.lax.scan(step, n, None, 2)[0], apply)

    meta = [jax.jit(jax.grad(lambda n, a=apply: after_a_step(n, a)))(net)
            for apply in (mlp.apply, mlp.reference)]  # fmt: skip
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), *meta)


def test_threads_of_the_host_at_once():
    """Programs that run at the same time share one team of threads: one of them would read the
    other's work, or wait for ever."""
    inputs, nets, _ = case(512)
    x, net = single(inputs), single(nets)

    @jax.jit
    def many(scale):
        def step(total, _):
            outputs = mlp.apply([scale * x[0], x[1]], net, "tanh")
            return total + outputs[0].sum() + outputs[1].sum(), None

        return jax.lax.scan(step, 0.0, None, 200)[0]

    scales = [1.0, 2.0, 3.0]
    alone = [float(many(s)) for s in scales]
    found = [[] for _ in scales]

    def repeat(i):
        for _ in range(5):
            found[i].append(float(many(scales[i])))

    runners = [threading.Thread(target=repeat, args=(i,)) for i in range(len(scales))]
    for runner in runners:
        runner.start()
    for runner in runners:
        runner.join(60)
        assert not runner.is_alive(), "a program waits for its tasks"
    assert found == [[value] * 5 for value in alone]  # bit for bit


@pytest.mark.slow
def test_an_actor_critic_is_the_same_with_and_without():
    """The kernel would be given another layer than the network has, or a bound of the policy."""
    for actions, seen in ((Discrete(3), ()), (Box(-1.0, 1.0, (2,)), (5,))):
        space = Box(-1.0, 1.0, (4,))
        shape = {"hidden_sizes": (16, 8), "activation": "tanh"}
        plain = networks.actor_critic(space, actions, networks.NetworkConfig(**shape))
        fused = networks.actor_critic(
            space, actions, networks.NetworkConfig(**shape, fused_mlp=True)
        )
        params = plain.init(fastrl.key(0))
        x = jax.random.normal(fastrl.key(1), (*seen, 40, 4))
        for method in ("apply", "policy", "value"):
            one, other = (getattr(n, method)(params, x) for n in (plain, fused))
            compare = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)  # noqa: E731
            jax.tree.map(compare, one, other)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"activation": "gelu"}, "does not go with activation='gelu': .* tanh or relu as"),
        ({"torso": "conv", "shared_torso": True}, "go with torso='conv', shared_torso=True: "),
        ({"hidden_sizes": (64, 20)}, r"hidden_sizes=\(64, 20\) must be multiples of 8"),
    ],
)
def test_what_the_kernels_cannot_do_is_said_at_once(fields, message):
    """An error from inside numba, or a silent fall back to what is slower."""
    with pytest.raises(ValueError, match=message):
        ppo.Config(**{"activation": "tanh", **fields}, fused_mlp=True)


def test_without_numba_it_is_what_xla_does(monkeypatch):
    """Where numba cannot be used a training would end in an error."""
    inputs, nets, weights = case(64)
    monkeypatch.setattr(_numba_ffi, "_specs", lambda *a: 1 / 0)
    total = lambda nets: sum(  # noqa: E731
        (y * w).sum() for y, w in zip(mlp.apply(single(inputs), nets, "relu"), weights, strict=True)
    )
    with pytest.warns(RuntimeWarning, match="slower reference"):
        found = jax.jit(jax.grad(total))(single(nets))
    for i, net in enumerate(nets):
        want = oracle(inputs[i], net, weights[i], "relu")[2]
        for a, b in zip(jax.tree.leaves(found[i]), jax.tree.leaves(want), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_a_q_network_is_the_same_with_and_without():
    """Its norms, or the value of a dueling head, would be other layers than the network has."""
    space, actions = Box(-1.0, 1.0, (4,)), Discrete(3)
    shape = {"hidden_sizes": (16, 8), "activation": "relu", "layer_norm": True}
    nets = [q_network(space, actions, networks.NetworkConfig(**shape, fused_mlp=fused),
                      num_outputs=2, dueling=True) for fused in (False, True)]  # fmt: skip
    params = jax.tree.map(lambda p: p + 0.1, nets[0].init(fastrl.key(0)))
    x = jax.random.normal(fastrl.key(1), (5, 40, 4))
    plain, fused = (net.apply(params, x) for net in nets)
    assert plain.shape == (5, 40, 3, 2)
    np.testing.assert_allclose(plain, fused, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("module", [sac, pytest.param(pqn, marks=pytest.mark.full)])
def test_learners_go_on_bit_for_bit_and_do_what_they_do_without(module, tmp_path):
    """A resumed run would part from one that never stopped, seeds in a batch would read each
    other's networks, or a learner would give the kernels another network than it has."""
    small = {"hidden_sizes": (16, 8)}
    if module is pqn:
        small |= {"num_envs": 4, "num_steps": 8, "num_minibatches": 2}
    else:
        small |= {"learning_starts": 8, "num_rounds": 16, "batch_size": 16, "buffer_size": 64}
    env, steps = fastrl.make("CartPole-v1" if module is pqn else "Pendulum-v1"), 64
    plain = module.make(env, module.Config(**small))
    fused = module.make(env, module.Config(**small, fused_mlp=True))
    whole = fastrl.train(fused, steps=2 * steps, progress=False, eval_every=0)
    options = {"run_dir": tmp_path / "run", "progress": False, "eval_every": 0}
    fastrl.train(fused, steps=steps, **options)
    again = fastrl.train(fused, steps=2 * steps, resume=True, **options)
    jax.tree.map(np.testing.assert_array_equal, *map(fused.parameters, (whole, again)))
    keys, fixed = jax.random.split(fastrl.key(1), 2), (fused.default_hparams, env.default_params())
    both = jax.jit(jax.vmap(fastrl.run(fused, steps), (0, None, None)))(keys, *fixed)[0]
    alone = jax.jit(fastrl.run(plain, steps))(keys[1], *fixed)[0]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a[1], b, rtol=1e-3, atol=1e-4),
        fused.parameters(both), plain.parameters(alone),
    )  # fmt: skip


@pytest.mark.slow
def test_ppo_learns_with_it_and_goes_on_bit_for_bit(tmp_path):
    """Updates by kernels would not reach what XLA's do, or a resumed run would part from one that
    never stopped."""
    config = ppo.Config(
        num_envs=32, num_steps=32, num_minibatches=4, activation="tanh", hidden_sizes=(32, 32),
        fused_mlp=True,
    )  # fmt: skip
    algorithm = ppo.make(fastrl.make("CartPole-v1"), config)
    hparams = ppo.HParams(learning_rate=2e-3)
    keys, task = jax.random.split(fastrl.key(7), 8), algorithm.env.default_params()
    _, counted = jax.jit(fastrl.members(algorithm, 100_000))(keys, hparams, task)
    returns = metrics.compute(counted)["episode_return"][:, -20:]
    assert np.nanmean(returns) > 300  # of 40 seeds: 411, with XLA's operations 392
    whole = fastrl.train(algorithm, hparams, steps=20_000, progress=False)
    options = {"run_dir": tmp_path / "run", "progress": False, "eval_every": 0}
    fastrl.train(algorithm, hparams, steps=10_000, **options)
    again = fastrl.train(algorithm, hparams, steps=20_000, resume=True, **options)
    same = jax.tree.map(lambda a, b: bool((a == b).all()), whole.params, again.params)
    assert all(jax.tree.leaves(same))
