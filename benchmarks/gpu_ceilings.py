"""Peak rates of the GPU, measured with torch: matrix products, elementwise arithmetic, copies."""

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from benchmarks.gpu_results import Results


def main(folder: Path) -> None:
    results = Results(folder / "results.jsonl")
    if not torch.cuda.is_available():
        return results.add("ceilings", "left out", reason="torch has no CUDA device here")
    if results.has("ceilings", what="device to host"):
        return None
    device = torch.device("cuda")
    results.add("ceilings", what="device", value=torch.cuda.get_device_name(), unit="", method="")

    def seconds(run: Callable[[], object], rounds: int = 20) -> float:
        """Shortest time of all rounds, each measured until it ends."""
        best = float("inf")
        for _ in range(rounds):
            torch.cuda.synchronize()
            began = time.perf_counter()
            run()
            torch.cuda.synchronize()
            best = min(best, time.perf_counter() - began)
        return best

    n = 8192
    for what, dtype in (("bf16", torch.bfloat16), ("fp16", torch.float16), ("fp32", torch.float32)):
        a = torch.randn(n, n, device=device, dtype=dtype)
        b = torch.randn(n, n, device=device, dtype=dtype)
        rate = 2 * n**3 / seconds(partial(torch.matmul, a, b))
        results.add("ceilings", what=f"{what} matrix product", value=rate, unit="FLOP/s",
                    method=f"best of 20 of {n} x {n}, TF32 off")  # fmt: skip
    x = torch.empty(1 << 28, device=device)
    moved = 2 * x.nbytes / seconds(lambda: x.mul_(1.0))
    results.add("ceilings", what="memory", value=moved, unit="B/s",
                method="best of 20: 1 GiB of float32 multiplied in place")  # fmt: skip
    host = torch.empty(1 << 28, dtype=torch.uint8, pin_memory=True)
    there = torch.empty(1 << 28, dtype=torch.uint8, device=device)
    down = host.nbytes / seconds(lambda: host.copy_(there, non_blocking=True), 5)
    results.add("ceilings", what="device to host", value=down, unit="B/s",
                method="best of 5: 256 MiB, pinned")  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[2]))
