"""The benchmark of a GPU writes its table on a CPU too."""

import pytest

from tests.benchmarks import gpu


@pytest.mark.slow
def test_gpu_benchmark_on_a_cpu_writes_a_row_for_each_statement(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "STATEMENTS", (gpu.kept_errors, gpu.casts, gpu.checkpoints))
    gpu.main(gpu.Options(device="cpu", rounds=1, out=str(tmp_path / "gpu.md")))
    rows = [line for line in (tmp_path / "gpu.md").read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    assert [row[2:4] for row in rows] == ["st", "4.", "4.", "6.", "10"]
    _, _, before, after, _ = rows[-1].split("|", 4)
    assert float(before.split()[0]) > 200 > 50 > float(after.split()[0])  # MiB, of the process
