"""Measurements: each script runs both sides in one run and prints the ratio."""

from labelmint.extras import name_missing_extra

name_missing_extra("serve,train,export,cli,dev")
