"""Few labeled images -> weights of the label ensemble."""
