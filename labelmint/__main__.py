"""Entry point of `python -m labelmint`, the same as the command `labelmint`."""

import signal
import sys

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # Ctrl-C during this import ends without a traceback; `main` reports later ones.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from labelmint.cli import main

if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
    signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(main())
