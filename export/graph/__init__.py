"""The served graph: synthesis, label branch, ensemble and filter as one ONNX file."""
