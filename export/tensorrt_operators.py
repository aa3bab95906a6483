"""What TensorRT's ONNX parser takes of the operators that exported graphs may use.

Copied from docs/operators.md of onnx/onnx-tensorrt: branch release/8.5-GA at fdeeaca (opsets up
to 17) and release/10.1-GA at 96e7811 (opsets 9 to 20). Types that no graph of ours has are left
out. TensorRT 8.5 reads INT64 as INT32; that table does not list it, and no more does this one.
"""

# name: (types in 8.5, types in 10.1)
_PARSED = {
    "Abs": ("FP32 FP16 INT32", "FP32 FP16 INT32 INT64"),
    "Add": ("FP32 FP16 INT32", "FP32 FP16 INT32 INT64"),
    "ArgMax": ("FP32 FP16", "FP32 FP16 INT32 INT64"),
    "AveragePool": ("FP32 FP16 INT32", "FP32 FP16"),
    "Cast": ("FP32 FP16 INT32 BOOL", "FP32 FP16 INT32 INT64 BOOL UINT8"),
    "Clip": ("FP32 FP16", "FP32 FP16"),
    "Concat": ("FP32 FP16 INT32 BOOL", "FP32 FP16 INT32 INT64 BOOL"),
    "Conv": ("FP32 FP16", "FP32 FP16"),
    "ConvTranspose": ("FP32 FP16", "FP32 FP16"),
    "Div": ("FP32 FP16 INT32", "FP32 FP16 INT32 INT64"),
    "Equal": ("FP32 FP16 INT32", "FP32 FP16 INT32 INT64"),
    "Floor": ("FP32 FP16", "FP32 FP16"),
    "Gather": ("FP32 FP16 INT32 BOOL", "FP32 FP16 INT32 INT64 BOOL"),
    "Gemm": ("FP32 FP16", "FP32 FP16"),
    "Greater": ("FP32 FP16 INT32", "FP32 FP16 INT32 INT64"),
    "GreaterOrEqual": ("FP32 FP16 INT32", "FP32 FP16 INT32 INT64"),
    "InstanceNormalization": ("FP32 FP16", "FP32 FP16"),
    "LeakyRelu": ("FP32 FP16", "FP32 FP16"),
    "Less": ("FP32 FP16 INT32", "FP32 FP16 INT32 INT64"),
    "LessOrEqual": ("FP32 FP16 INT32", "FP32 FP16 INT32 INT64"),
    "Log": ("FP32 FP16", "FP32 FP16"),
    "LogSoftmax": ("FP32 FP16", "FP32 FP16"),
    "MatMul": ("FP32 FP16", "FP32 FP16"),
    "Min": ("FP32 FP16 INT32", "FP32 FP16 INT32 INT64"),
    "Mul": ("FP32 FP16 INT32", "FP32 FP16 INT32 INT64"),
    "Range": ("FP32 FP16 INT32", "FP32 FP16 INT32 INT64"),
    "Reciprocal": ("FP32 FP16", "FP32 FP16"),
    "ReduceMax": ("FP32 FP16", "FP32 FP16 INT32 INT64"),
    "ReduceMean": ("FP32 FP16", "FP32 FP16 INT32 INT64"),
    "ReduceMin": ("FP32 FP16", "FP32 FP16 INT32 INT64"),
    "ReduceSum": ("FP32 FP16", "FP32 FP16 INT32 INT64"),
    "Relu": ("FP32 FP16", "FP32 FP16 INT32 INT64"),
    "Reshape": ("FP32 FP16 INT32 BOOL", "FP32 FP16 INT32 INT64 BOOL"),
    "Resize": ("FP32 FP16", "FP32 FP16"),
    "Shape": ("FP32 FP16 INT32 BOOL", "FP32 FP16 INT32 INT64 BOOL"),
    "Slice": ("FP32 FP16 INT32 BOOL", "FP32 FP16 INT32 INT64 BOOL"),
    "Softmax": ("FP32 FP16", "FP32 FP16"),
    "Split": ("FP32 FP16 INT32 BOOL", "FP32 FP16 INT32 INT64 BOOL"),
    "Sqrt": ("FP32 FP16", "FP32 FP16"),
    "Squeeze": ("FP32 FP16 INT32 BOOL", "FP32 FP16 INT32 INT64 BOOL"),
    "Sub": ("FP32 FP16 INT32", "FP32 FP16 INT32 INT64"),
    "Tanh": ("FP32 FP16", "FP32 FP16"),
    "Transpose": ("FP32 FP16 INT32 BOOL", "FP32 FP16 INT32 INT64 BOOL"),
    "Unsqueeze": ("FP32 FP16 INT32 BOOL", "FP32 FP16 INT32 INT64 BOOL"),
    "Where": ("FP32 FP16 INT32 BOOL", "FP32 FP16 INT32 INT64 BOOL"),
}

OPERATORS = frozenset(_PARSED)
TYPES_8_5 = {name: frozenset(types.split()) for name, (types, _) in _PARSED.items()}
TYPES_10 = {name: frozenset(types.split()) for name, (_, types) in _PARSED.items()}
