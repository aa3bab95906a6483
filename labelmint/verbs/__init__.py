"""What the command `labelmint` can do, one module per verb. Needs the extra `cli`."""
