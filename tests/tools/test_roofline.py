"""Roofline: the FLOPs of a step and the measured seconds of its phases."""

import torch

from ocensa_nb.runtime import timing
from tests.helpers.small_engine import NO_SCALING, batch, engine, objective, small_model, split_batch
from tools import roofline
from tools.roofline import PHASES


def small_engine():
    return engine(small_model(), objective(), NO_SCALING, "fp32")


def test_work_adds_up_to_the_flops_of_a_step_and_backward_is_about_twice_the_forward():
    made, other = small_engine(), small_engine()
    work = roofline.work(made, split_batch(batch(8), 4))
    assert tuple(work) == PHASES
    whole = timing.flops_of(lambda: other.step(split_batch(batch(8), 4)))
    assert sum(phase.flops for phase in work.values()) == whole
    assert 1.7 < work["backward"].flops / work["forward"].flops <= 2


def test_measured_phases_cover_the_step_and_leave_the_engine_as_it_was():
    made, other = small_engine(), small_engine()
    forward = made.forward
    torch.manual_seed(3)
    seconds = roofline.measure(made, lambda: [batch(4)])
    torch.manual_seed(3)
    other.step([batch(4)])
    assert set(seconds) == set(PHASES)
    assert all(value > 0 for value in seconds.values())
    assert made.forward is forward
    assert "accumulate" not in vars(made)
    for one, same in zip(made.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(one, same)
