"""Checks that find out why a client gets no samples: the subcommand `labelmint doctor`.

`machine` checks the local installation, `connection` the network path to the server, and `server`
the server itself. Each check is a `Check`: what was checked, what was found, and the fix.
"""
