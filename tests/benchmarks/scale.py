"""Seconds and memory of reading, tokenizing, predicting and auditing many notices, hardly two of them the same.

python -m tests.benchmarks.scale --rows 50000 300000 --jobs predict-auto predict-linear predict-none audit

The job `predict-none` reads and writes what the models would have predicted, without them.

Each job runs in its own process. Its memory is the peak of that process, and how much of it is above what the process
took right after it imported the package.
"""

import multiprocessing
import tempfile
import threading
import time
from pathlib import Path

import psutil
import tyro

from ocensa_nb.audit import audit
from ocensa_nb.config import from_recipe
from ocensa_nb.daily.score import score
from ocensa_nb.data import notices, synthetic
from ocensa_nb.evaluation import predict
from ocensa_nb.evaluation.predictor import Predictor
from ocensa_nb.models import catalogue, tokens
from ocensa_nb.runs.run import Run
from ocensa_nb.training import train

JOBS = ("tokens", "read", "predict-auto", "predict-linear", "predict-encoder", "predict-none", "audit")
TRAINED_ROWS = 4_000
PIECE = 250_000  # rows that are made at once


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
            write(path, count, seed)
            for job in jobs:
                process = processes.Process(target=measure, args=(job, path, folder, model))
                process.start()
                process.join()
            path.unlink()


def write(path: Path, rows: int, seed: int) -> None:
    """Write that many notices to a CSV; no two of a piece have the same text."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        for start in range(0, rows, PIECE):
            count = min(PIECE, rows - start)
            piece = synthetic.generate(count + count // 3, seed + start).drop_duplicates("descripcion").iloc[:count]
            piece.to_csv(file, index=False, header=not start)


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
    memory, above = (f"{size / 2**20:.0f}" for size in (peak, peak - start))
    print(f"{job}, {path.stem} rows: {seconds:.1f} s, {memory} MiB, {above} above the start", flush=True)


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
        out = folder / f"{job}-{path.stem}.csv"
        predictor, source = Predictor.load(Run.load(folder / "run")), job.partition("-")[2]
        if source == "none":  # only reading and writing
            one, source = predictor.logits(["bomba"]), "auto"
            Predictor.logits = lambda self, texts, *_: {
                model: {head: values.repeat(len(texts), 0) for head, values in heads.items()}
                for model, heads in one.items()
            }
        score(predictor, path, out, source=source)
        out.unlink()


if __name__ == "__main__":
    tyro.cli(main)
