"""Read, prepare and encode a million notices: time of each part, and peak memory.

python -m tests.benchmarks.scale --rows 1000000
"""

import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import psutil
import tyro

from ocensa_nb.config import from_recipe
from ocensa_nb.data import notices, synthetic
from ocensa_nb.models import catalogue, tokens

Made = TypeVar("Made")


def main(rows: int = 1_000_000, seed: int = 3, model: str = "minilm") -> None:
    """Generate, read, prepare and encode `rows` notices."""
    process, peak, over = psutil.Process(), [0], threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            peak[0] = max(peak[0], process.memory_info().rss)

    threading.Thread(target=watch, daemon=True).start()

    def timed(name: str, work: Callable[[], Made]) -> Made:
        since = time.perf_counter()
        made = work()
        print(f"{name}: {time.perf_counter() - since:.1f} s, peak {peak[0] / 2**30:.2f} GiB so far", flush=True)
        return made

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "avisos.csv"
        timed("generate (not counted)", lambda: synthetic.write_csv(synthetic.generate(rows, seed), path))
        peak[0] = process.memory_info().rss
        config = from_recipe("cpu", {"data": str(path), "model": model})
        started = time.perf_counter()
        file = timed("read", lambda: notices.read(path))
        prepared = timed("prepare", lambda: notices.prepare(file, config))
        tokenizer = catalogue.load_tokenizer(model, prepared.texts)
        table = timed("encode", lambda: tokens.encode(prepared.texts, tokenizer, config.max_length))
        seconds = time.perf_counter() - started
    over.set()
    print(f"{len(table):,} rows, {len(table.ids):,} tokens: {seconds:.0f} s, {peak[0] / 2**30:.2f} GiB at most")


if __name__ == "__main__":
    tyro.cli(main)
