"""Complete uses of labelmint, each runnable from this checkout."""
