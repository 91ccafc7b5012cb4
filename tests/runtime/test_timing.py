"""Counting FLOPs, peak memory and the bandwidth of a machine."""

import pytest
import torch

from ocensa_nb.runtime import timing

CPU = torch.device("cpu")


def test_flops_of_matrix_product_match_its_shapes():
    a, b = torch.randn(3, 5), torch.randn(5, 7)
    assert timing.flops_of(lambda: a @ b) == 2 * 3 * 5 * 7


def test_peak_memory_of_two_tensors_is_their_total_size():
    memory = timing.PeakMemory(CPU)
    with memory.watch():
        held = torch.ones(64 * 2**20 // 4)
        torch.ones_like(held).sum()
    assert 100 * 2**20 < memory.bytes < 300 * 2**20


def test_peak_memory_on_a_gpu_is_recorded_if_the_block_raises(monkeypatch):
    for name, value in (("memory_allocated", 10), ("max_memory_allocated", 70), ("reset_peak_memory_stats", None)):
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    memory = timing.PeakMemory(torch.device("cuda"))
    with pytest.raises(ValueError, match="step"), memory.watch():
        raise ValueError("step")
    assert memory.bytes == 60


def test_memory_bandwidth_is_that_of_a_real_machine():
    assert 1e8 < timing.memory_bandwidth(CPU) < 1e13
