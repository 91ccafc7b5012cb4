"""Training in several processes: the weights of one process, early stopping, skipped steps, checkpoints and cache."""

import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ocensa_nb.engine import frozen_features
from ocensa_nb.engine.step import Engine, classifier
from ocensa_nb.errors import AskedToStopError
from ocensa_nb.evaluation.predict import predict
from ocensa_nb.models.catalogue import load_encoder, load_tokenizer
from ocensa_nb.models.tokens import encode
from ocensa_nb.runs.run import Run
from ocensa_nb.runtime import distributed, process
from ocensa_nb.training import inputs, train
from tests.helpers.ranks import run_ranks

pytestmark = pytest.mark.slow

# Rows of an epoch: 320 in 400. Without dropout, because the masks of several processes are others.
STILL = {"dropout": 0.0, "epochs": 1, "class_weights": True, "label_smoothing": 0.1, "precision": "fp32"}
CASES = {
    "whole encoder, ragged last step": {"freeze_layers": 0, "batch_size": 48},
    "micro-batches": {"freeze_layers": 0, "batch_size": 4, "gradient_accumulation_steps": 4},
    "one row in the last step": {"freeze_layers": 0, "batch_size": 29},
    "cached features": {"freeze_layers": 2, "batch_size": 16},
}


def fit_still(config):
    """Train without dropout in the encoder."""
    load = inputs.load_encoder

    def without_dropout(*arguments):
        encoder = load(*arguments)
        for module in encoder.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        return encoder

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inputs, "load_encoder", without_dropout)
        return train.fit(config)


def weights(path):
    return {**load_file(path / "encoder" / "model.safetensors"), **load_file(path / "heads.safetensors")}


def fit_path(world, config):
    return str(train.fit(config).path)


def fit_still_path(world, config):
    return str(fit_still(config).path)


def predict_all(world, run, data):
    return predict(Run.load(run), data).table.to_dict("list")


def skip_and_stop(world, config):
    """Spoil the loss of one step in the second process; then ask only that process to stop, and resume alone."""
    accumulate = Engine.accumulate
    check, calls, made = process.StopRequest.check, 0, []

    def spoilt(engine, micro_batches, normalisers):
        losses = accumulate(engine, micro_batches, normalisers)
        made.append(1)
        if world.rank == 1 and len(made) == 30:
            for parameter in engine.model.parameters():
                if parameter.grad is not None:
                    parameter.grad.fill_(math.nan)
        return losses

    def stop_the_second(asked, folder, world):
        nonlocal calls
        calls += 1
        if world.rank == 1 and calls == 15:
            asked.signal = 15
        check(asked, folder, world)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Engine, "accumulate", spoilt)
        patch.setattr(process.StopRequest, "check", stop_the_second)
        try:
            train.fit(config)
        except AskedToStopError as error:
            return error.exit_code, calls
    return 0, calls


def interrupt(world, config, calls):
    check, made = process.StopRequest.check, 0

    def stop(asked, folder, world):
        nonlocal made
        made += 1
        asked.signal = 2 if made == calls else 0
        check(asked, folder, world)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process.StopRequest, "check", stop)
        with pytest.raises(AskedToStopError):
            train.fit(config)


def build_features(world, config, folder, visible):
    """Return the features that the processes compute together, and whether they came from the cache, twice."""
    notices = train.load_notices(config)
    tokenizer = load_tokenizer("tiny", notices.texts)
    table = encode(notices.texts, tokenizer, 64)
    found = []
    if not visible and not world.is_first:
        folder = folder / "elsewhere"
    for _ in range(2):
        model = classifier(config, notices, load_encoder("tiny", tokenizer, 0))
        features = frozen_features.build(model, table, 2, "fp32", folder, world)
        found.append((features.hidden.numpy(), features.reused))
    return found


def do_all(world, jobs):
    """Return the results of several functions, by name: starting processes takes longer than the tests."""
    return {name: function(world, *arguments) for name, (function, *arguments) in jobs.items()}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("processes")


@pytest.fixture(scope="module")
def cases(config, root):
    """Return, by name, the config of each case; the runs of one process have other folders."""
    return {
        name: config.replace(**(STILL | changes), out=str(root / f"2-{number}"))
        for number, (name, changes) in enumerate(CASES.items())
    }


@pytest.fixture(scope="module")
def alone(cases, root):
    """Return, by case, the run of one process."""
    return {
        name: fit_still(case.replace(out=str(root / f"1-{number}")))
        for number, (name, case) in enumerate(cases.items())
    }


@pytest.fixture(scope="module")
def few(csv, root):
    """Return a file of one notice: fewer than processes."""
    path = root / "uno.csv"
    path.write_text("\n".join(csv.read_text(encoding="utf-8").splitlines()[:2]) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def found(config, cases, alone, few, csv, root):
    """Return, by rank, the results of everything that two processes do in this module."""
    still = config.replace(**STILL, freeze_layers=4)
    interrupt(distributed.ALONE, still.replace(out=str(root / "grown")), 7)
    stopped = config.replace(out=str(root / "stopped"))
    run = alone["cached features"].path
    return run_ranks(
        do_all,
        {
            **{name: (fit_still_path, case) for name, case in cases.items()},
            "many": (predict_all, run, csv),
            "few": (predict_all, run, few),
            "skipped": (skip_and_stop, config.replace(out=str(root / "skipped"), batch_size=16)),
            "fp16": (fit_path, config.replace(out=str(root / "fp16"), precision="fp16", batch_size=29)),
            "whole": (fit_path, config.replace(out=str(root / "whole"))),
            "interrupted": (interrupt, stopped, 7),
            "stopped": (fit_path, stopped),
            "grown": (fit_still_path, still.replace(out=str(root / "grown"))),
            "one disk": (build_features, config, root / "disk", True),
            "a disk each": (build_features, config, root / "disks", False),
        },
    )


@pytest.mark.parametrize("case", CASES)
def test_two_processes_give_the_weights_and_losses_of_one(case, alone, cases, found):
    one, two = alone[case], Run.load(cases[case].out)
    for name, weight in weights(one.path).items():
        torch.testing.assert_close(weights(two.path)[name], weight, atol=1e-5, rtol=0, msg=f"{case}: {name}")
    lines = [[line["loss"] for line in run.history() if "step" in line] for run in (one, two)]
    np.testing.assert_allclose(lines[0], lines[1], rtol=1e-5)
    assert len(lines[0]) == math.ceil(320 / one.config.effective_batch_size)


@pytest.mark.parametrize("case", CASES)
def test_two_processes_report_the_metrics_of_one(case, alone, cases, found):
    one, two = alone[case], Run.load(cases[case].out)
    for side in ("val", "test"):
        assert two.metrics["encoder"][side] == pytest.approx(one.metrics["encoder"][side], abs=1e-6)
    assert (two.metrics["best_epoch"], two.metrics["epochs"]) == (one.metrics["best_epoch"], one.metrics["epochs"])


@pytest.mark.parametrize("name", ["many", "few"])
def test_two_processes_predict_every_row_in_order(name, alone, csv, few, found):
    expected = predict(alone["cached features"], {"many": csv, "few": few}[name]).table.to_dict("list")
    for results in found:
        for column, values in expected.items():
            if column.startswith("conf_"):
                np.testing.assert_allclose(results[name][column], values, atol=2e-4)
            else:
                assert results[name][column] == values


def test_step_is_skipped_by_all_processes_and_a_signal_to_one_stops_all(config, root, found):
    assert [results["skipped"] for results in found] == [(128 + 15, 15)] * 2
    run = train.fit(config.replace(out=str(root / "skipped"), batch_size=16))  # resumed by one process
    steps = [line for line in run.history() if "step" in line]
    assert [line["step"] for line in steps] == list(range(1, 41))
    assert ["skipped" in line for line in steps].count(True) == run.metadata["skipped_steps"] == 1


def test_two_processes_train_in_fp16_with_one_row_in_the_last_step(root, found):
    run = Run.load(root / "fp16")
    assert len([line for line in run.history() if "step" in line]) == 2 * math.ceil(320 / 29)
    assert run.metadata["precision"] == "fp16"


def test_run_of_two_processes_resumed_by_two_is_the_uninterrupted_run(root, found):
    expected = weights(root / "whole")
    for name, weight in weights(root / "stopped").items():
        assert torch.equal(weight, expected[name]), name


def test_run_of_one_process_resumed_by_two_has_the_weights_of_one(config, root, found):
    whole = fit_still(config.replace(**STILL, freeze_layers=4, out=str(root / "grown alone")))
    for name, weight in weights(whole.path).items():
        torch.testing.assert_close(weights(root / "grown")[name], weight, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["one disk", "a disk each"])
def test_features_computed_in_shares_are_those_of_one_process(name, config, root, found):
    (expected, _), _ = build_features(distributed.ALONE, config, root / "alone", True)
    for results in found:
        (first, reused), (again, reused_again) = results[name]
        np.testing.assert_allclose(first, expected, atol=1e-5)
        assert np.array_equal(first, again)
        assert (reused, reused_again) == (False, name == "one disk")
