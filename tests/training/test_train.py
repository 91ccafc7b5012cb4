"""Training loop: exact accumulation, schedule, mixed precision, early stopping, reproducibility and history."""

import json
import os
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from ocensa_nb.engine import inference
from ocensa_nb.engine.batching import step_loader
from ocensa_nb.engine.optimizer import LinearSchedule, build_optimizer
from ocensa_nb.errors import UserError
from ocensa_nb.evaluation.metrics import flat_metrics, predicted_classes
from ocensa_nb.models import save, tokens
from ocensa_nb.models.catalogue import load_tokenizer
from ocensa_nb.runs.run import Run
from ocensa_nb.runtime import process
from ocensa_nb.training import train
from ocensa_nb.training.early_stopping import EarlyStopping
from tests.helpers import crash
from tests.helpers.small_engine import HEADS, SIZES, batch, engine, gradients, objective, small_model, split_batch


@pytest.mark.parametrize("rows", [16, 13])
@pytest.mark.parametrize("weighted", [True, False])
def test_accumulated_gradients_match_plain_pytorch_on_the_full_batch(rows, weighted):
    whole = batch(rows)
    weights = {"causa": torch.linspace(0.2, 3.0, SIZES["causa"])} if weighted else {}

    # Reference: torch's mean losses in one pass over the full batch.
    model = small_model().eval()
    logits = model(whole["inputs"], whole["attention_mask"])
    reference = sum(
        share * nn.CrossEntropyLoss(weight=weights.get(head), label_smoothing=0.1)(logits[head], whole["labels"][head])
        for head, share in HEADS.items()
    )
    reference.backward()
    expected = gradients(model)

    for size in (rows, 4, 1):
        model = small_model().eval()
        loss = engine(model, objective(0.1, **weights)).accumulate(split_batch(whole, size)).sum()
        assert loss.item() == pytest.approx(reference.item(), abs=1e-6)
        for name, gradient in gradients(model).items():
            torch.testing.assert_close(gradient, expected[name], atol=1e-6, rtol=0, msg=f"{name}, micro-batch {size}")


def test_fit_with_4_by_4_accumulation_has_the_losses_of_batch_16(config, csv, tmp_path):
    losses = []
    for size, steps in ((16, 1), (4, 4)):
        cuts = {"batch_size": size, "gradient_accumulation_steps": steps, "dropout": 0.0, "freeze_layers": 4}
        settings = config.replace(out=str(tmp_path / str(size)), epochs=1, class_weights=True, **cuts)
        losses.append([line["loss"] for line in train.fit(settings).history() if "step" in line])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)


def test_step_with_fp16_overflow_skips_the_optimizer_and_returns_non_finite_norm():
    model = small_model()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    too_large = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    _, norm = engine(model, objective(), too_large, "fp16").step([batch(8)])
    assert not norm.isfinite()
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())
    assert all(p.grad is None for p in model.parameters())

    fitting = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    _, norm = engine(model, objective(), fitting, "fp16").step([batch(8)])
    assert norm.isfinite()
    assert any(not torch.equal(before[name], p) for name, p in model.named_parameters())


def test_step_with_loss_scaling_clips_unscaled_gradients():
    model = small_model().eval()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    engine(model, objective(), scaler, "fp32", optimizer, max_grad_norm=0.01).step([batch(8)])
    moved = torch.cat([(before[name] - p.detach()).flatten() for name, p in model.named_parameters()])
    assert moved.norm().item() == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("precision", ["bf16", pytest.param("fp16", marks=pytest.mark.slow)])
def test_fit_on_cpu_in_half_precision_has_finite_losses_and_counts_skipped_steps(config, notices, tmp_path, precision):
    run = train.fit(config.replace(out=str(tmp_path / precision), precision=precision, epochs=1), notices)
    losses = [line["loss"] for line in run.history() if "step" in line]
    assert np.isfinite(losses).all()
    assert run.metadata["precision"] == precision
    steps = len(losses)
    assert 0 <= run.metadata["skipped_steps"] < steps


def test_linear_schedule_warms_up_and_decays_to_zero():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = LinearSchedule(optimizer, warmup_ratio=0.1, total_steps=100)
    rates = []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        schedule.move(1)
    assert rates[:10] == sorted(rates[:10])
    assert max(rates) == rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert optimizer.param_groups[0]["lr"] == 0.0


def test_fit_with_fp16_overflow_does_not_count_skipped_steps_in_the_schedule(config, notices, tmp_path, monkeypatch):
    moves = []
    move = LinearSchedule.move
    monkeypatch.setattr(LinearSchedule, "move", lambda self, steps: (moves.append(steps), move(self, steps)))
    # With an initial scale of 2^40 the first steps overflow, until the scaler has reduced it.
    scaler = torch.amp.GradScaler
    monkeypatch.setattr(
        torch.amp, "GradScaler", lambda kind, enabled: scaler(kind, init_scale=2.0**40, enabled=enabled)
    )
    run = train.fit(config.replace(out=str(tmp_path / "run"), precision="fp16", epochs=1), notices)
    losses = [line["loss"] for line in run.history() if "step" in line]
    assert np.isfinite(losses).all()
    assert run.metadata["skipped_steps"] > 0
    assert sum(moves) == len(losses) - run.metadata["skipped_steps"]


def test_build_optimizer_groups_weight_decay_and_rates_and_excludes_frozen_weights(config):
    from ocensa_nb.models.classifier import freeze

    model = small_model()
    freeze(model, 1)
    optimizer = build_optimizer(model, config)
    held = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        assert (id(parameter) in held) == parameter.requires_grad
        if parameter.requires_grad:
            group = held[id(parameter)]
            assert group["weight_decay"] == (config.weight_decay if parameter.ndim > 1 else 0.0)
            own = config.learning_rate if name.startswith("encoder.") else config.head_learning_rate
            assert group["lr"] == own


def test_fit_with_early_stopping_saves_the_weights_of_the_best_epoch(config, notices, tmp_path, monkeypatch):
    script = iter([0.1, 0.5, 0.4, 0.3, 0.2])
    after_epoch = {}
    update = EarlyStopping.update

    def scripted(self, epoch, scores, model):
        after_epoch[epoch] = {
            n: p.detach().clone() for n, p in model.named_parameters() if not n.startswith("encoder.")
        }
        return update(self, epoch, {**scores, self.monitor: next(script)}, model)

    monkeypatch.setattr(EarlyStopping, "update", scripted)
    run = train.fit(config.replace(out=str(tmp_path / "run"), epochs=9, patience=3), notices)
    assert run.metrics["best_epoch"] == 2
    assert run.metrics["epochs"] == 5  # patience 3 after the best epoch 2
    saved = load_file(run.path / "heads.safetensors")
    assert all(torch.equal(saved[name], after_epoch[2][name]) for name in saved)
    assert any(not torch.equal(saved[name], after_epoch[5][name]) for name in saved)


def test_early_stopping_gain_under_min_delta_is_best_but_does_not_reset_patience(config):
    stopping = EarlyStopping(config.replace(patience=2, min_delta=0.05))
    model = nn.Linear(1, 1)
    assert [stopping.update(epoch, {config.monitor: f1}, model) for epoch, f1 in enumerate([0.5, 0.52, 0.54], 1)] == [
        False,
        False,
        True,
    ]
    assert stopping.best_epoch == 3


def test_recorded_test_metrics_match_the_model_loaded_from_disk(run, notices):
    from ocensa_nb.models.tokens import encode

    model, tokenizer = save.load_model(Run.load(run.path))
    rows = notices.split["test"]
    table = encode(notices.texts, tokenizer, run.config.max_length)
    found = predicted_classes(inference.logits(model, table, rows, "fp32"))
    flat = flat_metrics({head: y[rows] for head, y in notices.labels.items()}, found)
    assert flat == run.metrics["encoder"]["test"]


@pytest.mark.parametrize("precision", ["fp32", pytest.param("fp16", marks=pytest.mark.slow)])
def test_fit_twice_and_in_another_process_is_bit_identical(run, config, notices, tmp_path, precision):
    settings = config.replace(precision=precision)
    second, elsewhere, other = (settings.replace(out=str(tmp_path / name)) for name in "bcd")
    first = run if precision == "fp32" else train.fit(settings.replace(out=str(tmp_path / "a")), notices)
    assert crash.run_content(train.fit(second, notices).path) == crash.run_content(first.path)
    if sys.platform != "win32":
        assert crash.train_in_process(elsewhere) == 0
        assert crash.run_content(tmp_path / "c") == crash.run_content(first.path)
    if precision != "fp32":
        other_seed = train.fit(other.replace(seed=7), notices)
        assert crash.run_content(other_seed.path) != crash.run_content(first.path)


def test_fit_with_dataloader_workers_has_the_losses_of_fit_without(run, config, notices, tmp_path):
    other = train.fit(config.replace(out=str(tmp_path / "run"), num_workers=2), notices)
    losses = [[line["loss"] for line in one.history() if "step" in line] for one in (run, other)]
    assert losses[0] == losses[1]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no signals to send to a process")
def test_dataloader_worker_that_receives_stop_signals_delivers_every_batch(config, notices):
    table = tokens.encode(notices.texts, load_tokenizer("tiny", notices.texts), config.max_length)
    loader, sampler = step_loader(table, notices, config.replace(num_workers=1), torch.device("cpu"))
    batches = iter(loader)
    next(batches)
    for number in process.SIGNALS:
        os.kill(batches._workers[0].pid, number)
    assert sum(1 for _ in batches) == len(sampler) - 1


def test_history_has_one_line_per_step_and_per_epoch(run):
    lines = [json.loads(line) for line in (run.path / "history.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "step" in line]
    epochs = [line for line in lines if "step" not in line]
    assert [line["step"] for line in steps] == list(range(1, len(steps) + 1))
    assert set(steps[0]) == {"step", "epoch", "loss", "lr", "rows_per_second", "memory"}
    assert [line["epoch"] for line in epochs] == [1, 2]
    assert "causa_f1" in epochs[0]


def test_history_epochs_contain_the_validation_confusion_of_the_monitored_head(run, notices):
    truth = notices.labels[run.config.monitored_head][notices.split["val"]]
    for line in (line for line in run.history() if "step" not in line):
        triples = np.array(line["confusion"])
        assert np.repeat(triples[:, 0], triples[:, 2]).tolist() == sorted(truth)
        hits = triples[triples[:, 0] == triples[:, 1], 2].sum()
        assert hits / len(truth) == pytest.approx(line[f"{run.config.monitored_head}_accuracy"])


def test_fit_with_one_head_succeeds(csv, config, tmp_path):
    settings = config.replace(heads={"causa": 1.0}, out=str(tmp_path / "one"), epochs=1)
    assert set(train.fit(settings).classes) == {"causa"}


def test_fit_with_too_many_frozen_layers_raises_before_creating_the_folder(config, notices, tmp_path):
    with pytest.raises(UserError, match="freeze_layers = 9"):
        train.fit(config.replace(freeze_layers=9, out=str(tmp_path / "no")), notices)
    assert not (tmp_path / "no").exists()
