"""`python -m fastrl.cli`: the program `fastrl` where it is not on the path."""

import sys

from fastrl.cli import main

sys.exit(main())
