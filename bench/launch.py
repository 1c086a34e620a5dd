"""Starts a worker: `python launch.py SETTINGS PROGRAM` calls `main(settings)` of that module.

Cores are chosen here, before the program imports anything that starts threads.
"""

import importlib
import sys

import worker

if __name__ == "__main__":
    settings, program = worker.start(), sys.argv[2]
    sys.argv = [program]  # some libraries read it
    importlib.import_module(program).main(settings)
