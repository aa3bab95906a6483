"""Name of the machine that runs the benchmark."""

import os
import platform
from pathlib import Path


def machine_name() -> str:
    """For example "AMD EPYC, 2 cores, Linux x86_64"."""
    cpuinfo = Path("/proc/cpuinfo")
    model = platform.processor() or "unknown processor"
    if cpuinfo.exists():
        names = [
            line.split(":", 1)[1].strip()
            for line in cpuinfo.read_text().splitlines()
            if line.startswith("model name")
        ]
        model = names[0] if names else model
    return f"{model}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}"
