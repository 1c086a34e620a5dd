"""`fastrl meta-train` and `fastrl meta-test`."""

import dataclasses
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from fastrl import config, statistics
from fastrl.cli import members, meta_config
from fastrl.cli.errors import UsageError
from fastrl.cli.flags import Argument, Switch, parse
from fastrl.cli.meta_config import MetaConfig
from fastrl.cli.request import import_module, usage_errors, use_devices
from fastrl.cli.train import picture
from fastrl.config.read import merge
from fastrl.run_folder import RunFolder
from fastrl.train import train as run_training

DEFAULT = {"rule": "lpo", "inner": {"env": "CartPole-v1"}}  # what help shows without a config


@dataclasses.dataclass(frozen=True)
class TrainFlags:
    """Meta-trains an objective: a config's settings, with flags over them.

    The folder of a run that was stopped goes on, bit for bit; more --steps make it longer.
    """

    file: Annotated[str, Argument("CONFIG")] = ""  # a TOML file, a name in configs/meta, or a run
    steps: int = 10_000_000  # environment steps of all inner agents together
    seed: int = 0  # of everything random
    devices: int = 1  # CPU devices to make, for config.devices
    run_dir: str = ""  # the run's folder; by default a new one, runs/meta-RULE-ENV-SEED
    import_: str = ""  # a module of yours that registers environments, imported first
    quiet: Annotated[bool, Switch] = False  # no progress on the terminal


def meta_train(argv: Sequence[str]) -> int:
    """Meta-trains what the command line asks for, or goes on with it; saves rule and pictures."""
    name = argv[0] if argv and not argv[0].startswith("-") else ""
    resumes = (Path(name) / "inputs").is_dir()
    meta, flags = _request(argv, name)
    if not name:
        raise UsageError("meta-train what? Name a config: fastrl meta-train lpo_cartpole")
    use_devices(flags.devices)
    import_module(flags.import_)
    with usage_errors():
        built = meta_config.build(meta, name)
    folder = Path(name) if resumes else _folder(meta, flags.run_dir)
    state = run_training(
        built.algorithm, built.hparams, built.task, steps=meta.steps, seed=meta.seed,
        run_dir=folder, resume=resumes, progress=not flags.quiet,
        config_text=meta_config.dumps(meta), **dataclasses.asdict(meta.train),
    )  # fmt: skip
    _finish(built, state, folder, meta_config.CURVES[meta.learner])
    return 0


@dataclasses.dataclass(frozen=True)
class TestFlags:
    """Trains agents with a meta-learned objective and, with the same seeds, with others.

    Settings are those of the meta-training's inner runs, with flags over them. `own` is the
    algorithm's own objective, `start` what the meta-training began with.
    """

    __test__ = False  # no test, whatever pytest takes it for

    run: Annotated[str, Argument("RUN")] = ""  # the folder of a meta-training that has ended
    env: str = ""  # the environment; by default that of the inner runs
    steps: int = 100_000  # environment steps of each agent: its lifetime
    seeds: int = 10  # agents of each kind
    seed: int = 0  # the first one
    episodes: int = 100  # of the evaluation at the end
    against: Literal["own", "start", "both", "none"] = "both"
    import_: str = ""  # a module of yours that registers environments, imported first


def meta_test(argv: Sequence[str]) -> int:
    """Prints what agents reach with the learned objective, with others, and the differences."""
    name = argv[0] if argv and not argv[0].startswith("-") else ""
    meta = _read(name)[0] if name else meta_config.from_toml(DEFAULT, "")
    sections = {"hparams": meta.inner.hparams, "config": meta.inner.config}
    flags, changes = parse(TestFlags(), argv, "fastrl meta-test", sections)
    if not name:
        raise UsageError(
            "test what? Name the folder of a meta-training: fastrl meta-test runs/NAME"
        )
    import_module(flags.import_)
    with usage_errors():
        run_config = _inner(meta, flags, changes)
        returns = {}
        for kind, objective in _objectives(name, flags.against).items():
            built = config.build(run_config, objective=objective)
            returns[kind] = _trained(built, flags)
            print(_row(kind, returns[kind]), flush=True)
    for kind in returns:
        if kind != "learned" and flags.seeds > 1:
            more = statistics.paired_difference(returns["learned"], returns[kind])
            print(f"learned - {kind:7} {more.estimate:9.4g}  [{more.low:.4g}, {more.high:.4g}]")
    return 0


def _request(argv: Sequence[str], name: str) -> tuple[MetaConfig, TrainFlags]:
    """The config that `argv` names with its flags over it."""
    meta, tables = _read(name) if name else (meta_config.from_toml(DEFAULT, ""), DEFAULT)
    flags = TrainFlags(steps=meta.steps, seed=meta.seed)
    sections = {"hparams": meta.hparams, "config": meta.config}
    flags, changes = parse(flags, argv, "fastrl meta-train", sections)
    own = {"steps": flags.steps, "seed": flags.seed}
    with usage_errors():
        return meta_config.from_toml(merge(tables, changes | own), name), flags


def _read(name: str) -> tuple[MetaConfig, dict[str, Any]]:
    """The config in a file or run folder, and its tables. Raises UsageError."""
    folder = Path(name)
    with usage_errors():
        file = folder / "config.toml" if folder.is_dir() else meta_config.find(name)
        try:
            tables = tomllib.loads(file.read_text(encoding="utf-8-sig"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{file}: is not TOML: {error}") from None
        if "env" in tables:
            raise ValueError(f"{file}: is a config of `fastrl train`, not of a meta-training")
        return meta_config.from_toml(tables, str(file)), tables


def _folder(meta: MetaConfig, run_dir: str) -> Path:
    """The folder for a new run."""
    if run_dir:
        return Path(run_dir)
    env = meta.inner.env.replace("/", "-")
    stem = f"meta-{meta.rule}-{env}-{meta.seed}"
    tries = [stem, *(f"{stem}-{n}" for n in range(2, 100_000))]
    return next(p for t in tries if not (p := Path("runs") / t).exists())


def _finish(built: meta_config.Built, state: Any, folder: Path, metric: str) -> None:
    """Saves the objective, draws, and says where everything is."""
    from fastrl.meta import library
    from fastrl.meta import picture as pictures

    eta = built.algorithm.parameters(state)
    print(f"objective   {library.save(folder, built.rule, eta)}")
    curve = RunFolder(folder).pictures / f"{metric}.png"
    print(f"picture     {picture([folder], curve, metric)}")
    if callable(getattr(built.rule, "drift", None)):
        drift = RunFolder(folder).pictures / "drift.png"
        print(f"            {pictures.draw(built.rule, eta, drift)}")
    print(f"go on with  fastrl meta-test {folder} --env NAME")


def _inner(meta: MetaConfig, flags: TestFlags, changes: dict[str, Any]) -> Any:
    """The config of the agents that are tested."""
    for name in ("seeds", "episodes", "steps"):
        if getattr(flags, name) < 1:
            raise UsageError(f"--{name} {getattr(flags, name)}: must be at least 1")
    inner = meta.inner
    if flags.env and flags.env != inner.env:  # numbers of one environment mean nothing to another
        inner = dataclasses.replace(
            inner, env=flags.env, params={}, env_options={}, transforms=(), reset={}
        )
    hparams = _replaced(inner.hparams, changes.get("hparams", {}))
    if hasattr(hparams, "anneal_steps"):
        hparams = hparams._replace(anneal_steps=float(flags.steps))
    changed = dataclasses.replace(inner.config, **changes.get("config", {}))
    return dataclasses.replace(inner, hparams=hparams, config=changed, steps=flags.steps)


def _replaced(record: Any, changes: dict[str, Any]) -> Any:
    """A NamedTuple with `changes` in it and in those within it."""
    inner = {k: _replaced(getattr(record, k), v) for k, v in changes.items() if isinstance(v, dict)}
    return record._replace(**changes | inner)


def _objectives(run: str, against: str) -> dict[str, Any]:
    """What is compared, by name; None is the algorithm's own."""
    from fastrl.kernels import prng
    from fastrl.meta import library

    loaded = library.load(run)
    kinds: dict[str, Any] = {"learned": loaded}
    if against in ("own", "both"):
        kinds["own"] = None
    if against in ("start", "both"):
        kinds["start"] = library.Loaded(loaded.rule, loaded.rule.init(prng.key(0)))
    return kinds


def _trained(built: Any, flags: TestFlags) -> np.ndarray:
    """The evaluation return of every agent."""
    seeds = range(flags.seed, flags.seed + flags.seeds)
    todo = [(built.hparams, built.task, seed) for seed in seeds]
    outcomes = members.train(built.algorithm, flags.steps, todo, flags.episodes)
    return np.array([o.evaluation_return for o in outcomes])


def _row(kind: str, returns: np.ndarray) -> str:
    finite = returns[np.isfinite(returns)]
    lost = f"  ({len(returns) - len(finite)} diverged)" if len(finite) < len(returns) else ""
    if len(finite) < 2:
        return f"{kind:17} {finite.mean() if len(finite) else np.nan:9.4g}{lost}"
    interval = statistics.t_interval(finite)
    return f"{kind:17} {interval.estimate:9.4g}  [{interval.low:.4g}, {interval.high:.4g}]{lost}"
