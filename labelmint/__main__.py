"""Entry point of `labelmint` and of `python -m labelmint`: `main` of `labelmint.cli`."""

import signal
import sys

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # Ctrl-C during this import ends without a traceback; `main` reports later ones.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from labelmint.extras import name_missing_extra

if __name__ == "__main__":
    name_missing_extra("cli")

from labelmint.cli import main

if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
    signal.signal(signal.SIGINT, signal.default_int_handler)

if __name__ == "__main__":
    sys.exit(main())
