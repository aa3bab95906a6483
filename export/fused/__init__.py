"""The label branch as Triton kernels with two graphs around them."""
