"""The ranks of one run, each in a fork of one process.

    python -m tests.client.torch_ranks MODULE RANKS WORD...

Each calls `main` of tests.client.MODULE with the words, and with the variables of a launcher.
Prints one JSON line: exit code, standard output and standard error of each rank.
"""

import importlib
import json
import os
import sys
from functools import partial

from tests.client.forked import forked


def main(module: str, ranks: int, words: list[str]) -> None:
    importlib.import_module("torch._dynamo")  # as every optimizer does: as long as torch itself
    run = importlib.import_module(f"tests.client.{module}").main

    def work(rank: int) -> None:
        os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(ranks)}
        run(*words)

    print(json.dumps(forked(partial(work, rank) for rank in range(ranks))))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
