"""The label branch as Triton kernels, with one ONNX graph before and one after them."""
