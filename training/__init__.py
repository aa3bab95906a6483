"""Few labelled images -> weights of the label ensemble."""
