"""Records what gym-electric-motor does, for tests without it: writes motors.npz beside this.

pip install gym-electric-motor==3.0.3
python tests/golden/make_motors.py
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

import motors_oracle as oracle

EPISODES, STEPS = 4, 20


def main() -> None:
    arrays = {}
    for seed, case in enumerate(oracle.CASES):
        for kind in ("forced", "free"):
            played = oracle.play(case, EPISODES, STEPS, seed, forced=kind == "forced")
            for name, values in oracle.fields(played).items():
                arrays[f"{kind}/{case.id}/{name}"] = values
    for seed, kind in enumerate(oracle.KINDS):
        for name, values in oracle.refer(kind, 500, seed)._asdict().items():
            arrays[f"reference/{kind}/{name}"] = values.astype(np.float32)
    for name in oracle.NAMES:
        arrays |= {f"task/{name}/{key}": value for key, value in oracle.facts(name).items()}
    np.savez_compressed(Path(__file__).with_name("motors.npz"), **arrays)


if __name__ == "__main__":
    main()
