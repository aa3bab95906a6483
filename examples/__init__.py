"""Complete uses of labelmint, each runnable from this checkout."""

from labelmint.extras import name_missing_extra

name_missing_extra("serve,train,export,cli")
