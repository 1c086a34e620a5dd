"""What gym-electric-motor does with a drive: the other side of the parity tests.

Needs `pip install gym-electric-motor==3.0.3`. `tests/golden/make_motors.py` records what `play`
returns; `tests/test_motors_parity.py` compares it with ours.
"""

import importlib
import warnings
from typing import Any, NamedTuple

import numpy as np


class Case(NamedTuple):
    """A task and the options in which it differs from the standard one."""

    name: str  # without "-v0"
    options: dict[str, Any] = {}  # noqa: RUF012 - fields of our Drive, never written to
    params: dict[str, float] = {}  # noqa: RUF012 - of ours, by dotted names

    @property
    def id(self) -> str:
        chosen = [f"{k}={v}" for k, v in (self.options | self.params).items()]
        return ",".join([self.name, *chosen])


INTERLOCKED = {"interlocking": "original"}
WINDY = {"load.a": 0.3, "load.b": 0.02, "load.c": 2e-4, "load.j_load": 1e-3}
# Every motor with both action spaces and all three controls, and every option somewhere.
CASES = [
    Case("Cont-CC-PermExDc"),
    Case("Finite-TC-PermExDc", {"interlocking": "original"}, {"interlocking_time": 2e-6}),
    Case("Cont-SC-PermExDc", {"solver": "euler", "substeps": 3}, WINDY),
    Case("Cont-SC-SeriesDc", {"dead_time": 2}),
    Case("Finite-CC-SeriesDc", {"converter": "1QC"}),
    Case("Cont-TC-SeriesDc", {"converter": "2QC"}, {"interlocking_time": 5e-6}),
    Case("Cont-TC-ShuntDc", {"converter": "1QC"}),
    Case("Finite-SC-ShuntDc"),
    Case("Cont-CC-ShuntDc", {}, {"interlocking_time": 5e-6}),
    Case("Cont-CC-ExtExDc"),
    Case("Finite-TC-ExtExDc", INTERLOCKED, {"interlocking_time": 2e-6}),
    Case("Cont-SC-ExtExDc", {"dead_time": 1}, WINDY),
    Case("Cont-CC-PMSM", {"control_space": "dq", "dead_time": 1}),
    Case("Finite-CC-PMSM", INTERLOCKED, {"interlocking_time": 2e-6}),
    Case("Cont-SC-PMSM", {}, {"interlocking_time": 5e-6} | WINDY),
    Case("Finite-TC-PMSM"),
    Case("Finite-SC-SeriesDc", {"converter": "2QC"} | INTERLOCKED, {"interlocking_time": 2e-6}),
]


class Played(NamedTuple):
    """Transitions of the original. Leaves are `[episodes, steps, ...]`, `valid` ones count."""

    plant: np.ndarray  # float32: speed, currents, angle before the step
    switches: np.ndarray  # states of half bridges before the step
    reference: np.ndarray  # what was observed before the step
    action: np.ndarray
    state: np.ndarray  # observed after the step
    reward: np.ndarray
    terminated: np.ndarray
    valid: np.ndarray


def make(case: Case) -> Any:
    """The original's environment for `case`."""
    gem: Any = importlib.import_module("gym_electric_motor")
    wrappers, ps = gem.physical_system_wrappers, gem.physical_systems

    options, params = case.options, case.params
    actions, _, motor = case.name.split("-")
    synchronous, tau = motor == "PMSM", 1e-4 if actions == "Cont" else 1e-5
    kind = options.get("converter", "B6C" if synchronous else "4QC")
    word = {"1QC": "OneQuadrant", "2QC": "TwoQuadrant", "4QC": "FourQuadrant", "B6C": "B6Bridge"}
    build = getattr(ps, f"{actions}{word[kind]}Converter")
    settings = {"tau": tau, "interlocking_time": params.get("interlocking_time", 0.0)}
    converter = build(**settings)
    if motor == "ExtExDc":
        both = getattr(ps, f"{actions}MultiConverter")
        converter = both(subconverters=(converter, build(**settings)), **settings)
    around = []
    if steps := options.get("dead_time"):
        around.append(wrappers.DeadTimeProcessor(steps))
    if options.get("control_space") == "dq":
        around.append(wrappers.DqToAbcActionProcessor.make("PMSM"))
    arguments = {"converter": converter, "physical_system_wrappers": tuple(around)}
    if options.get("solver") == "euler":
        arguments["ode_solver"] = ps.EulerSolver(options.get("substeps", 1))
    load = {k.removeprefix("load."): v for k, v in params.items() if k.startswith("load.")}
    if load:
        arguments["load"] = ps.PolynomialStaticLoad(load)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return gem.make(f"{case.name}-v0", visualization=(), **arguments).unwrapped


def system(env: Any) -> Any:
    """The physical system without wrappers."""
    inner = env.physical_system
    while hasattr(inner, "_physical_system"):
        inner = inner._physical_system
    return inner


def half_bridges(converter: Any) -> list[Any]:
    """The elementary converters within `converter`, in order."""
    inner = getattr(converter, "_subconverters", getattr(converter, "_sub_converters", None))
    return [converter] if inner is None else [b for c in inner for b in half_bridges(c)]


def restore(env: Any, plant: np.ndarray) -> None:
    """Puts speed, currents and angle in place of those after a reset."""
    inner = system(env)
    inner._ode_solver.set_initial_value(plant.astype(np.float64), 0.0)
    inner._t = 0.0
    for wrapper in _wrappers(env):
        if hasattr(wrapper, "_angle_advance"):  # which keeps the last state
            wrapper._state[[wrapper._angle_index, wrapper._omega_index]] = plant[[-1, 0]]


def _wrappers(env: Any) -> list[Any]:
    found, inner = [], env.physical_system
    while hasattr(inner, "_physical_system"):
        found.append(inner)
        inner = inner._physical_system
    return found


def start(env: Any, rng: np.random.Generator, reach: float) -> np.ndarray:
    """A random plant within `reach` of the limits, float32."""
    inner = system(env)
    names = [*inner.mechanical_load.state_names, *inner.electrical_motor.CURRENTS]
    limits = [inner.limits[inner.state_names.index(name)] for name in names]
    if "epsilon" in inner.state_names:
        limits.append(np.pi / reach)
    return (rng.uniform(-reach, reach, len(limits)) * limits).astype(np.float32)


def play(
    case: Case, episodes: int, steps: int, seed: int, *, forced: bool, reach: float = 0.9
) -> Played:
    """Random actions from random plants within `reach` of the limits.

    `forced` rounds the plant to float32 before every step, and draws another one after ends.
    Without it a trajectory runs freely from its rounded start, and is invalid after its end.
    """
    rng, env = np.random.default_rng(seed), make(case)
    env.action_space.seed(seed)
    inner = system(env)
    bridges = half_bridges(inner.converter) if case.options.get("interlocking") else []
    columns: list[tuple[Any, ...]] = []
    for episode in range(episodes):
        (_, reference), _ = env.reset(seed=seed + episode)
        restore(env, start(env, rng, reach))
        for bridge in bridges:
            bridge._switching_state = 0  # which the original keeps from the last episode
        valid = True
        for _ in range(steps):
            plant = np.asarray(inner._ode_solver.y, np.float32)
            if "epsilon" in inner.state_names:
                plant[-1] = np.angle(np.exp(1j * plant[-1]))
            if forced:
                restore(env, plant)
            switches = [b._switching_state for b in bridges]
            action = env.action_space.sample()
            if case.name.startswith("Cont"):
                action = action.astype(np.float32).astype(np.float64)
            (state, following), reward, terminated, _, _ = env.step(action)
            columns.append((plant, switches, reference, action, state, reward, terminated, valid))
            reference, valid = following, valid and (forced or not terminated)
            env._terminated = False
            if terminated:
                restore(env, start(env, rng, reach))
    arrays = (np.array(c) for c in zip(*columns, strict=True))
    return Played(*(a.reshape(episodes, steps, *a.shape[1:]) for a in arrays))


def fields(played: Played) -> dict[str, np.ndarray]:
    """`played` as small arrays to be saved."""
    small = {np.dtype(np.float64): np.float32, np.dtype(int): np.int8}
    return {k: v.astype(small.get(v.dtype, v.dtype)) for k, v in played._asdict().items()}


MOTORS = ("SeriesDc", "ShuntDc", "PermExDc", "ExtExDc", "PMSM")
NAMES = [f"{a}-{c}-{m}" for a in ("Cont", "Finite") for c in ("CC", "TC", "SC") for m in MOTORS]
FACTS = ("names", "start", "limits", "numbers", "load", "signals")


def facts(name: str) -> dict[str, np.ndarray]:
    """The defaults of the task `name`: see FACTS."""
    gem: Any = importlib.import_module("gym_electric_motor")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        env = gem.make(f"{name}-v0", visualization=()).unwrapped
    system_, generator = env.physical_system, env.reference_generator
    limits = dict(zip(system_.state_names, system_.limits, strict=True))
    current = limits[next(n for n in limits if n[0] == "i")]
    voltage = limits[next(n for n in limits if n[0] == "u")]
    load = system_.mechanical_load
    parameters = getattr(load, "load_parameter", {})
    (start, _), _ = env.reset(seed=0)
    signals = getattr(generator, "_sub_generators", [generator])
    return {
        "names": np.array(system_.state_names),
        "start": start,
        "limits": np.array([limits["omega"], limits["torque"], current, voltage]),
        "numbers": np.array([limits["u_sup"], system_.tau, env.reward_function._violation_reward]),
        "load": np.array(
            [*(parameters.get(k, 0.0) for k in "abc"), getattr(load, "omega_fixed", 0.0)]
        ),
        "signals": np.array([[*s._limit_margin, *s._sigma_range] for s in signals]),
    }


class Referenced(NamedTuple):
    """Uniform numbers `[steps, words]` and the references `[steps]` that the original made."""

    words: np.ndarray
    values: np.ndarray


KINDS = ("wiener", "sinusoidal", "step", "triangular", "sawtooth")
LENGTHS, FREQUENCIES, SIGMAS = (40, 160), (30.0, 300.0), (1e-3, 1e-1)


class Table:
    """In place of NumPy's generator: numbers from the rows of a table, in our order of words."""

    def __init__(self, words: np.ndarray) -> None:
        self.words, self.row, self.column = words, 0, 0

    def uniform(self, low: float = 0.0, high: float = 1.0, size: Any = None) -> Any:
        if size is not None:  # where a Wiener process starts
            return np.array([low + (high - low) * self.words[0, 3]])
        self.column += 1
        return self.words[self.row, self.column - 1]

    def triangular(self, low: float, mode: float, high: float) -> float:
        assert (low, mode, high) == (0, 0.5, 1)
        return self.words[self.row, 5:7].mean()

    def normal(self, mean: float, sigma: float, size: int) -> np.ndarray:
        from scipy.stats import norm

        steps = self.words[self.row : self.row + size, 2]
        return np.pad(sigma * norm.ppf(steps), (0, size - len(steps)))


def refer(kind: str, steps: int, seed: int) -> Referenced:
    """References of `kind` to the current of a permanently excited motor."""
    rg = importlib.import_module("gym_electric_motor").reference_generators
    words = (np.random.default_rng(seed).integers(1, 1024, (steps, 7)) / 1024.0).astype(float)
    names = {"wiener": "WienerProcess"}
    build = getattr(rg, f"{names.get(kind, kind.capitalize())}ReferenceGenerator")
    ranges = {"sigma_range": SIGMAS} if kind == "wiener" else {"frequency_range": FREQUENCIES}
    generator = build(reference_state="i", episode_lengths=LENGTHS, **ranges)
    inner = make(Case("Cont-CC-PermExDc")).physical_system
    generator.set_modules(inner)
    table = Table(words)
    generator._random_generator = table
    generator.next_generator = lambda: None
    values = [generator.reset(np.zeros(5))[1][0]]
    for row in range(1, steps):
        table.row, table.column = row, 0
        values.append(generator.get_reference_observation()[0])
    return Referenced(words, np.array(values))
