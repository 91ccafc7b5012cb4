"""Seconds and memory of reading, tokenizing, predicting and auditing many notices, all different.

python -m tests.benchmarks.scale --rows 50000 300000 --jobs predict-auto predict-linear audit

Each job runs in its own process. Its memory is the peak of that process, minus what the process took right after it
imported the package.
"""

import multiprocessing
import tempfile
import threading
import time
from pathlib import Path

import pandas as pd
import psutil
import tyro

from ocensa_nb.audit import audit
from ocensa_nb.config import from_recipe
from ocensa_nb.data import notices, synthetic
from ocensa_nb.evaluation import predict
from ocensa_nb.models import catalogue, tokens
from ocensa_nb.runs.run import Run
from ocensa_nb.training import train

JOBS = ("tokens", "read", "predict-auto", "predict-linear", "predict-encoder", "audit")
TRAINED_ROWS = 4_000


def main(
    rows: tuple[int, ...] = (1_000_000,), jobs: tuple[str, ...] = ("tokens",), model: str = "minilm", seed: int = 3
) -> None:
    """Measure each job of `JOBS` at each number of rows; `model` is the encoder of the run that predicts."""
    processes = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if any(job.startswith("predict") for job in jobs):
            synthetic.write_csv(synthetic.generate(TRAINED_ROWS, seed + 1), folder / "training.csv")
            settings = {"data": str(folder / "training.csv"), "model": model, "epochs": 1, "out": str(folder / "run")}
            train.fit(from_recipe("cpu", settings))
        for count in rows:
            path = folder / f"{count}.csv"
            synthetic.write_csv(different(count, seed), path)
            for job in jobs:
                process = processes.Process(target=measure, args=(job, path, folder, model))
                process.start()
                process.join()
            path.unlink()


def different(rows: int, seed: int) -> pd.DataFrame:
    """Return that many notices of which no two have the same text."""
    return synthetic.generate(rows + rows // 3, seed).drop_duplicates("descripcion").iloc[:rows]


def measure(job: str, path: Path, folder: Path, model: str) -> None:
    """Print the seconds of a job, and the most memory it takes above that at the start."""
    process, over = psutil.Process(), threading.Event()
    start = peak = process.memory_info().rss

    def watch() -> None:
        nonlocal peak
        while not over.wait(0.02):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    since = time.perf_counter()
    work(job, path, folder, model)
    seconds = time.perf_counter() - since
    over.set()
    watcher.join()
    print(f"{job}, {path.stem} rows: {seconds:.1f} s, {(peak - start) / 2**30:.2f} GiB above the start", flush=True)


def work(job: str, path: Path, folder: Path, model: str) -> None:
    config = from_recipe("cpu", {"data": str(path), "model": model})
    if job == "tokens":
        prepared = notices.prepare(notices.read(path), config)
        tokens.encode(prepared.texts, catalogue.load_tokenizer(model, prepared.texts), config.max_length)
    elif job == "read":
        predict.read_unlabelled(Run.load(folder / "run"), path)
    elif job == "audit":
        audit.audit(audit.settings(str(path)))
    else:
        predicted = predict.predict(Run.load(folder / "run"), path, job.partition("-")[2])
        predict.save(predicted, folder / f"{job}-{path.stem}.csv")


if __name__ == "__main__":
    tyro.cli(main)
