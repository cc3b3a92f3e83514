"""`python -m stzoo`, without code of the current folder, which `python -m` puts first on the search path."""

import sys

from stzoo import environment

if not sys.flags.safe_path and not environment.lies_here():
    del sys.path[0]

from stzoo.cli import main

raise SystemExit(main())
