"""Entry point of `python -m labelmint`, the same as the command `labelmint`."""

import sys

from labelmint.cli import main

sys.exit(main())
