"""Several processes that train or predict together (data parallelism): join them, and the collectives they need.

    torchrun --nproc_per_node=2 -m ocensa_nb train --data avisos.csv --out runs/two

Every process holds the whole model and takes its share of each effective batch; gradients and normalisers are summed.
Unlike `DistributedDataParallel`, no collective runs within a backward pass, so a process can repeat it after running
out of memory.
"""

import contextlib
import datetime
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist

from ocensa_nb.errors import SharedError, UserError
from ocensa_nb.runtime import machine

# A process waits while the first one fits the simple model, scores or saves. The end of a process is noticed at once
# all the same: its connections close, and torchrun ends the others.
TIMEOUT = datetime.timedelta(hours=2)
SMALL = 2**16  # elements: smaller tensors are sent together
LOST = (
    "{} terminó de forma inesperada; suele ser falta de memoria. Para continuar un entrenamiento desde su último "
    "checkpoint, o empezarlo si aún no hay ninguno, ejecute lo mismo otra vez, con este número de procesos o con otro."
)
T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """The processes that work together, the rank of this one, and how many run on this machine.

    In a single process every collective returns what it was given.
    """

    rank: int = 0
    size: int = 1
    local_size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files and the messages."""
        return self.rank == 0

    def describe(self) -> str:
        return f", {self.size} procesos" if self.size > 1 else ""

    def share(self, rows: np.ndarray) -> np.ndarray:
        """Return the rows of this process: every `size`-th one, so that rows sorted by length are shared evenly."""
        return rows[self.rank :: self.size]

    def sum(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace tensors of one dtype and device by their sums over the processes; the bits are the same in all."""
        if self.size == 1:
            return
        tensors = [t for t in tensors if t.numel()]
        small = [t for t in tensors if t.numel() < SMALL or not t.is_contiguous()]
        large = [t for t in tensors if t.numel() >= SMALL and t.is_contiguous()]
        together = [torch.cat([t.reshape(-1) for t in small])] if small else []
        with _lost_process_as_error():
            for work in [dist.all_reduce(t, async_op=True) for t in (*together, *large)]:
                work.wait()
        for flat in together:
            for tensor, part in zip(small, flat.split([t.numel() for t in small]), strict=True):
                tensor.copy_(part.view_as(tensor))

    def largest(self, number: int) -> int:
        if self.size == 1:
            return number
        largest = torch.tensor(int(number))
        with _lost_process_as_error():
            dist.all_reduce(largest, dist.ReduceOp.MAX)
        return int(largest)

    def all(self, condition: bool) -> bool:
        return not self.largest(not condition)

    def gather(self, value: T) -> list[T]:
        values = [value] * self.size
        if self.size > 1:
            with _lost_process_as_error():
                # pickled by torch; these processes trust each other
                dist.all_gather_object(values, value)
        return values

    def on_first(self, work: Callable[[], T]) -> T:
        """Call a function in the first process only; return its value, or raise its `UserError`, in all."""
        with self.agreed():
            shared = [work() if self.is_first else None]
        if self.size > 1:
            with _lost_process_as_error():
                dist.broadcast_object_list(shared, 0, device=torch.device("cpu"))
        return shared[0]

    @contextlib.contextmanager
    def agreed(self) -> Iterator[None]:
        """Raise in every process the `UserError` that any of them raised in the block, which has no collectives."""
        error = None
        try:
            yield
        except UserError as raised:
            error = raised
        messages = self.gather(str(error or ""))
        if error and (self.is_first or not messages[0]):
            raise error
        if message := next(filter(None, messages), ""):
            raise UserError(message) if self.is_first else SharedError(message)

    def require_same(self, value: Callable[[], Any], message: str) -> None:
        """Raise `UserError` with a message, in all processes, if their values differ."""
        values = self.gather(value()) if self.size > 1 else []
        with self.agreed():
            if any(other != values[0] for other in values):
                raise UserError(message)

    def wait(self) -> None:
        self.largest(0)


ALONE = World()


def world() -> World:
    return _joined or ALONE


@contextlib.contextmanager
def join(environ: Mapping[str, str]) -> Iterator[World]:
    """Join the processes that torchrun has started, inside the block; without them, yield `ALONE`.

    `environ` has torchrun's variables. Raises `UserError` if there are more processes than usable GPUs on this machine,
    or the processes do not find each other.
    """
    global _joined
    size, local_size = (int(environ.get(name, 1)) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    if size == 1:
        yield ALONE
        return
    local_rank = int(environ.get("LOCAL_RANK", 0))
    bound: dict[str, torch.device] = {}
    if machine.device().type == "cuda":
        if local_size > torch.cuda.device_count():
            raise UserError(
                f"Hay {local_size} procesos y {torch.cuda.device_count()} GPU en esta máquina. Use un proceso por GPU: "
                f"--nproc_per_node={torch.cuda.device_count()}."
            )
        torch.cuda.set_device(local_rank)
        bound["device_id"] = torch.device("cuda", local_rank)  # NCCL connects now, and not within the first sum
    if environ.get("OMP_NUM_THREADS", "1") == "1":  # the value that torchrun sets if the user set none
        torch.set_num_threads(max(1, machine.physical_cores() // local_size))
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=TIMEOUT, **bound)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"Los {size} procesos no se encuentran entre sí: {error}") from error
    _joined = World(dist.get_rank(), size, local_size)
    try:
        yield _joined
        _joined.wait()  # the first process may still be writing
    finally:
        _joined = None
        dist.destroy_process_group()  # or its threads end the interpreter with an abort


_joined: World | None = None


@contextlib.contextmanager
def _lost_process_as_error() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if machine.out_of_memory(error):
            raise
        raise UserError(LOST.format("Otro de los procesos que trabajan juntos")) from error
