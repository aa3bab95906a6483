"""The labeller: synthesis, label branch, ensemble and filter in one ONNX graph."""
