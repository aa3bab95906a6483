"""Generated from protos/labelmint/v1 by protos/generate.py; do not edit the other files here."""
