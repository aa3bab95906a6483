"""`python -m labelmint` is the command `labelmint`."""

import sys

from labelmint.cli import main

sys.exit(main())
