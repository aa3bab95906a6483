"""What stands between a client and its samples, as checks: `labelmint doctor`.

machine, connection, server: this machine's installation, the way to the server, and the server.
"""
