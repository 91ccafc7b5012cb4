"""What a training says while it runs: one history line a step, and the progress bar."""

import time

import torch
from tqdm.auto import tqdm

from ocensa_nb.runs import Run

READ_EVERY = 10  # steps between reads of the loss: on a GPU each read waits for the device
READ_SECONDS = 1.0  # after which it is read anyway: slow steps should be seen one by one


class Journal:
    """Collects the steps of a training, writes them to the run's history, and moves the bar."""

    def __init__(self, run: Run, total_steps: int, skips: bool) -> None:
        self.run = run
        self.skips = skips  # with a loss scaler a norm that is not finite is a skipped step, else it is a fault
        self.bar = tqdm(total=total_steps, desc="Entrenando", unit="paso", dynamic_ncols=True)
        self.skipped = 0
        self._step = 0
        self._pending: list[tuple[int, float, int, torch.Tensor]] = []
        self._since = time.perf_counter()

    def step(self, epoch: int, loss: torch.Tensor, norm: torch.Tensor, learning_rate: float, rows: int) -> int:
        """Note one optimiser step; return how many steps have turned out to be skipped since the last read."""
        self._step += 1
        self._pending.append((epoch, learning_rate, rows, torch.stack([loss, norm.to(loss)])))
        if len(self._pending) == READ_EVERY or time.perf_counter() - self._since > READ_SECONDS:
            return self.flush()
        return 0

    def flush(self) -> int:
        """Read what is waiting, write its lines, move the bar; return how many of its steps were skipped."""
        if not self._pending:
            return 0
        losses, norms = torch.stack([values for *_, values in self._pending]).cpu().unbind(1)
        skipped = int((~norms.isfinite()).sum()) if self.skips else 0
        self.skipped += skipped
        now = time.perf_counter()
        rows_per_second = sum(rows for _, _, rows, _ in self._pending) / (now - self._since)
        first = self._step - len(self._pending) + 1
        self.run.append_history(
            {"step": first + i, "epoch": epoch, "loss": loss, "lr": rate, "rows_per_second": rows_per_second}
            for i, ((epoch, rate, _, _), loss) in enumerate(zip(self._pending, losses.tolist(), strict=True))
        )
        self.bar.set_postfix_str(f"pérdida {losses[-1]:.3f}, {rows_per_second:.0f} filas/s", refresh=False)
        self.bar.update(len(self._pending))
        self._pending.clear()
        self._since = time.perf_counter()
        return skipped

    def epoch(self, line: dict[str, float], monitor: str) -> None:
        """Write the line of a finished epoch and say it in one sentence."""
        self.run.append_history([line])
        self.bar.write(
            f"Época {line['epoch']}: pérdida {line['loss']:.3f}, {monitor} de validación {line[monitor]:.3f}, "
            f"{line['seconds']:.0f} s"
        )
        self._since = time.perf_counter()  # validation is not training

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self.flush()
        self.bar.close()
