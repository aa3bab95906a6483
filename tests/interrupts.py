"""Processes that can be interrupted, however the tests were started."""

# A shell's background jobs ignore SIGINT, and so does whatever they start.
INTERRUPTIBLE = ("env", "--default-signal=INT")
