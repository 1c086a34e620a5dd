"""Records what the package MinAtar does, for tests without it: writes minatar.npz beside this.

pip install MinAtar==1.0.15
python tests/golden/make_minatar.py
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

import minatar_oracle as oracle

STEPS, STARTS = 500, 8


def main() -> None:
    arrays = {}
    for name in oracle.NAMES:
        arrays |= {f"{name}/steps/{k}": v for k, v in oracle.play(name, STEPS, 0).items()}
        arrays |= {f"{name}/starts/{k}": v for k, v in oracle.starts(name, STARTS, 0).items()}
    np.savez_compressed(Path(__file__).with_name("minatar.npz"), **arrays)


if __name__ == "__main__":
    main()
