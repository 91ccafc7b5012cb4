"""Non-finite steps: detected, reported, skipped and counted; training stops after N in a row."""

import math
import re

import pytest
import torch

from ocensa_nb.engine.optimizer import step_if_finite
from ocensa_nb.engine.step import Engine, Objective
from ocensa_nb.errors import LISTED, DivergedError
from ocensa_nb.figures import training
from ocensa_nb.runs.checkpoint import CheckpointFiles
from ocensa_nb.runs.run import LAST
from ocensa_nb.training import early_stopping, expected_time, train
from ocensa_nb.training.early_stopping import NonFiniteGuard


def make_loss_non_finite(monkeypatch, steps, head=1, value=math.nan):
    """Multiply the loss of a head by a non-finite value in the given steps, counted from 1."""
    step, call, made = Engine.step, Objective.__call__, [0]
    monkeypatch.setattr(expected_time, "estimate_time", lambda *_: expected_time.Estimate(1, 1, 0))  # it steps too

    def counted(self, micro_batches):
        made[0] += 1
        if made[0] in steps:
            factor = torch.ones(3)
            factor[head] = value
            with monkeypatch.context() as patch:
                patch.setattr(Objective, "__call__", lambda *a: call(*a) * factor)
                return step(self, micro_batches)
        return step(self, micro_batches)

    monkeypatch.setattr(Engine, "step", counted)


@pytest.mark.parametrize(
    ("precision", "value"),
    [
        ("fp32", math.nan),
        ("bf16", math.inf),
        pytest.param("fp32", math.inf, marks=pytest.mark.slow),
        pytest.param("bf16", math.nan, marks=pytest.mark.slow),
    ],
)
def test_fit_with_non_finite_steps_skips_reports_and_continues(
    config, notices, tmp_path, monkeypatch, capsys, precision, value
):
    make_loss_non_finite(monkeypatch, {3, 4}, value=value)
    run = train.fit(config.replace(out=str(tmp_path / "run"), precision=precision, epochs=1), notices)
    said = capsys.readouterr()
    text = said.out + said.err
    assert f"Paso 3: la pérdida de «causa» es {value}" in text
    assert re.search(r"\(tasa 0,000\d+; filas útiles \d", text)
    assert "Paso 4:" in text
    assert "Paso 5:" not in text
    assert run.metadata["skipped_steps"] == 2
    lines = [line for line in run.history() if "step" in line]
    assert [line["step"] for line in lines if line["loss"] is None] == [3, 4]
    assert all(math.isfinite(line["loss"]) for line in run.history() if "step" not in line)
    assert all(0 <= value <= 1 for name, value in run.metrics["test"].items() if name.endswith("_f1"))
    assert training.training_gif(run).exists()
    training.learning_curves(run)


def test_fit_with_non_finite_step_reports_the_rows_of_that_step(config, notices, tmp_path, monkeypatch, capsys):
    make_loss_non_finite(monkeypatch, {2})
    seen = {}
    rows_of = train.step_loader

    def spied(*args):
        loader, sampler = rows_of(*args)
        sampler.epoch = 1
        seen["rows"] = list(sampler)[1]
        return loader, sampler

    monkeypatch.setattr(train, "step_loader", spied)
    train.fit(config.replace(out=str(tmp_path / "run"), epochs=1), notices)
    said = capsys.readouterr()
    named = ", ".join(str(row + 1) for row in sorted(seen["rows"])[:LISTED])
    assert f"filas útiles {named} y {len(seen['rows']) - LISTED} más" in said.out + said.err


def test_fit_with_three_non_finite_steps_in_a_row_raises_and_saves_finite_weights(
    config, notices, tmp_path, monkeypatch
):
    settings = config.replace(out=str(tmp_path / "run"))
    with monkeypatch.context() as patch:
        make_loss_non_finite(patch, {5, 6, 7})
        with pytest.raises(
            DivergedError, match=r"3 pasos seguidos .*«causa».*learning_rate y head_learning_rate menores"
        ):
            train.fit(settings, notices)
    tensors, tree = CheckpointFiles(tmp_path / "run" / LAST).read()
    assert tree["state"]["step"] == 7
    kept = {name: values for name, values in tensors.items() if "weights/" in name or "exp_avg" in name}
    assert kept
    assert all(values.isfinite().all() for values in kept.values())


def test_fit_with_two_non_finite_steps_in_a_row_twice_continues(config, notices, tmp_path, monkeypatch):
    make_loss_non_finite(monkeypatch, {2, 3, 5, 6})
    run = train.fit(config.replace(out=str(tmp_path / "run"), epochs=1), notices)
    assert run.metadata["skipped_steps"] == 4


def test_schedule_does_not_advance_on_a_skipped_step(config, notices, tmp_path, monkeypatch):
    make_loss_non_finite(monkeypatch, {3})
    run = train.fit(config.replace(out=str(tmp_path / "run"), epochs=1), notices)
    rates = [line["lr"] for line in run.history() if "step" in line]
    assert rates[3] == rates[2]


def test_guard_with_loss_scaling_raises_only_at_the_higher_limit():
    watch = NonFiniteGuard(["causa"], scaled=True)
    for _ in range(early_stopping.LIMIT_SCALED - 1):
        assert watch.see([1.0], math.inf) == "la norma del gradiente es inf"
        watch.check()
    watch.see([1.0], math.nan)
    with pytest.raises(DivergedError, match="precision = 'fp32'"):
        watch.check()
    assert watch.skipped == early_stopping.LIMIT_SCALED


def test_guard_raises_after_three_in_a_row_and_resume_restarts_the_count():
    watch = NonFiniteGuard(["causa"], scaled=False)
    for norm in (math.nan, math.nan, math.nan, 1.0):  # on a GPU several steps are checked at once
        watch.see([1.0], norm)
    with pytest.raises(DivergedError):
        watch.check()
    again = NonFiniteGuard(["causa"], scaled=False)
    again.load_state_dict(watch.state_dict() | {"in_a_row": 3})
    assert again.skipped == 3
    for _ in range(early_stopping.LIMIT - 1):
        again.see([1.0], math.nan)
        again.check()
    again.see([1.0], math.nan)
    with pytest.raises(DivergedError):
        again.check()


def test_step_if_finite_with_fused_adamw_skips_and_then_steps_normally():
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([weight], fused=True)
    weight.grad = torch.full((3,), math.nan)
    step_if_finite(optimizer, torch.tensor(math.nan))
    assert torch.equal(weight, torch.ones(3))
    weight.grad = torch.ones(3)
    step_if_finite(optimizer, torch.tensor(1.0))
    reference = torch.nn.Parameter(torch.ones(3))
    reference.grad = torch.ones(3)
    torch.optim.AdamW([reference], fused=True).step()
    assert torch.equal(weight, reference)
    assert not hasattr(optimizer, "found_inf")
