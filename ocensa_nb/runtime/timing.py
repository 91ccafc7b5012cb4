"""Measure the time, memory and FLOPs of a training step, and the peaks of the machine."""

import contextlib
import ctypes
import gc
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from ocensa_nb.runtime.machine import memory_taken, synchronize

SAMPLE_SECONDS = 0.002
# Matrix products of a layer at BERT's width, and a large square one; the fastest is the machine's peak.
PEAK_SHAPES = ((768, 768, 768), (1024, 768, 3072), (2048, 2048, 2048))
BANDWIDTH_BYTES = 2**28  # of each array in the measurement of the memory bandwidth
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    synchronize(device)
    started = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - started


@contextlib.contextmanager
def timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - started


def flops_of(work: Callable[[], object]) -> int:
    """Return the floating-point operations of the matrix products in a call, counted from their actual shapes."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


@cache
def peak_flops(precision: str, device: torch.device) -> float:
    """Return the highest FLOP/s of a matrix product on a device; the measurement takes about a second."""
    draw = partial(torch.randn, device=device, dtype=DTYPES.get(precision, torch.float32))
    products = ((2 * m * k * n, partial(torch.mm, draw(m, k), draw(k, n))) for m, k, n in PEAK_SHAPES)
    return _highest_rate(products, device)


@cache
def memory_bandwidth(device: torch.device) -> float:
    """Return the highest bytes/s between the device and its memory; the measurement takes about a second."""
    a, b = (torch.ones(BANDWIDTH_BYTES // 4, device=device) for _ in range(2))
    size = a.nbytes
    # They write only where they have read: a write elsewhere makes a processor read first.
    kernels = ((size, a.sum), (2 * size, lambda: a.mul_(1.0)), (3 * size, lambda: a.add_(b)))
    return _highest_rate(kernels, device)


def _highest_rate(kernels: Iterable[tuple[int, Callable[[], object]]], device: torch.device) -> float:
    """Return the highest amount per second of some kernels, from the median time of each."""
    rates = []
    for amount, kernel in kernels:
        seconds = [seconds_of(kernel, device) for _ in range(15)]
        rates.append(amount / float(np.median(seconds[5:])))
    return max(rates)


class PeakMemory:
    """The peak memory during `watch`, in `bytes`, relative to the memory in use at construction."""

    def __init__(self, device: torch.device) -> None:
        release_memory()
        self.device = device
        self.bytes = 0
        on_gpu = device.type == "cuda"
        self._before = torch.cuda.memory_allocated(device) if on_gpu else memory_taken(device)

    @contextlib.contextmanager
    def watch(self) -> Iterator[None]:
        """Record the peak inside the block: torch's counter on a GPU, or samples of the process memory every 2 ms."""
        done = threading.Event()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            try:
                yield
            finally:
                self.bytes = torch.cuda.max_memory_allocated(self.device) - self._before
            return
        peak = [memory_taken(self.device)]

        def sample() -> None:
            while not done.wait(SAMPLE_SECONDS):
                peak.append(max(peak.pop(), memory_taken(self.device)))

        watcher = threading.Thread(target=sample, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()
            self.bytes = max(peak[0] - self._before, 0)


def release_memory() -> None:
    gc.collect()
    torch.cuda.empty_cache()
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # the C library is not glibc
            ctypes.CDLL(None).malloc_trim(0)
