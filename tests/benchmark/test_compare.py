"""Comparing optimisations: the order of the ladder, the text of each rung, claims on real steps, bytes of a step."""

import json
import sys

import nbformat
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ocensa_nb.benchmark import compare
from ocensa_nb.benchmark.techniques import EXACT, TRADE, Setting, Technique, cumulative, individual, ladder, summarize
from ocensa_nb.cli import main as cli
from ocensa_nb.config import TrainConfig, baseline_of
from ocensa_nb.engine import step as engines
from ocensa_nb.engine.frozen_features import FrozenFeatures
from ocensa_nb.engine.step import Fast
from ocensa_nb.errors import UserError
from ocensa_nb.experiments.execute import execute
from ocensa_nb.figures import comparison as figures
from ocensa_nb.models.catalogue import load_encoder, load_tokenizer
from ocensa_nb.models.classifier import freeze
from ocensa_nb.models.layers import BlockDropout
from ocensa_nb.models.tokens import encode
from ocensa_nb.paths import NOTEBOOKS
from tests.helpers import forked
from tests.helpers.crash import is_killed, leftovers, sampled_operations
from tests.helpers.small_engine import NO_SCALING, batch, engine, objective, small_model, split_batch

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def executed(csv, tmp_path_factory):
    """Return notebook 05, executed, and the folder that it writes; it makes the one comparison of these tests."""
    folder = tmp_path_factory.mktemp("compare")
    parameters = {"model": "tiny", "data": str(csv), "steps": 1, "out": str(folder / "out")}
    with forked.processes():
        return execute(NOTEBOOKS / "05_compare_optimizations.ipynb", folder, parameters), folder / "out"


@pytest.fixture(scope="module")
def compared(executed):
    return json.loads((executed[1] / "compare.json").read_text(encoding="utf-8"))


@pytest.mark.slow
def test_execute_notebook_05_shows_tables_and_images(executed):
    cells = nbformat.read(executed[0], as_version=4).cells
    kinds = [kind for cell in cells for output in cell.get("outputs", []) for kind in output.get("data", {})]
    assert kinds.count("image/png") == 2
    assert kinds.count("text/html") >= 2


@pytest.mark.slow
def test_ladder_orders_baseline_then_exact_then_trade_offs_then_feature_cache(compared):
    results = compared
    names = [rung["name"] for rung in results["ladder"]]
    assert names[0] == "baseline"
    assert names[-1] == "feature_cache"
    exact = [rung["exact"] for rung in results["ladder"][:-1]]
    assert exact == sorted(exact, reverse=True)
    assert names == [technique.name for technique in ladder(Setting(4, results["cuts"], results["halves"], "cpu"))]


@pytest.mark.slow
def test_compare_reports_time_speedup_flops_and_utilisation_of_each_technique(compared):
    results = compared
    for rung in results["ladder"] + results["alone"]:
        assert 0 < rung["seconds_min"] <= rung["seconds_per_step"] <= rung["seconds_max"]
        assert rung["speedup_min"] <= rung["speedup"] <= rung["speedup_max"]
        assert rung["gflops_per_step"] > 0
        assert 0 < rung["utilisation"] < 1
        assert 0 < rung["roofline_seconds"] < rung["seconds_per_step"]
        assert rung["roofline_share"] == pytest.approx(rung["roofline_seconds"] / rung["seconds_per_step"])
        assert rung["run_seconds"] >= 300 * rung["seconds_per_step"]  # 320 training rows, 15 epochs
        assert rung["models_seconds"] == pytest.approx(3 * rung["run_seconds"])
    assert results["ladder"][0]["speedup"] == 1
    assert results["machine"]["peak_gflops"]["fp32"] > 1
    assert results["machine"]["threads"] >= 1


@pytest.mark.slow
def test_cumulative_techniques_reduce_flops_padding_and_trainable_parameters(compared):
    cumulative = {rung["name"]: rung for rung in compared["ladder"]}
    halves = compared["halves"]
    work = {name: rung["gflops_per_step"] for name, rung in cumulative.items()}
    assert work["baseline"] > 2 * work["dynamic_padding"] > 2 * work["cls_only"]
    assert work["mixed_precision" if halves else "max_length"] > work["freeze"] > work["feature_cache"]
    assert cumulative["baseline"]["padded_share"] > 0.8
    assert cumulative["dynamic_padding"]["padded_share"] < 0.05
    assert cumulative["freeze"]["trainable_parameters"] < cumulative["baseline"]["trainable_parameters"]
    assert cumulative["feature_cache"]["build_seconds"] > 0


@pytest.mark.slow
def test_compare_writes_all_files_and_a_verdict_for_every_technique(compared, tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(compare, "compare", lambda config, steps: asked.append((config, steps)) or compared)
    words = ["compare", "--data", "a.csv", "--model", "tiny", "--steps", "2", "--out", str(tmp_path / "out")]
    assert cli.main([*words, "--json", "-"]) == 0
    assert asked == [(TrainConfig(data="a.csv", model="tiny"), 2)]
    printed = capsys.readouterr()
    assert json.loads(printed.out) == compared
    assert "Todo junto" in printed.err
    folder = tmp_path / "out"
    for words in ("max_length = 128", "Congelar", "Acumular", "mitad de las capas", "GPU", "workers"):
        assert words in (folder / "verdicts.txt").read_text(encoding="utf-8")
    names = {"compare.json", "ladder.csv", "ladder.png", "alone.csv", "alone.png", "verdicts.txt"}
    assert {file.name for file in folder.iterdir()} == names
    assert json.loads((folder / "compare.json").read_text(encoding="utf-8")) == compared


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL and forked processes")
def test_comparison_killed_at_any_file_operation_can_be_saved_again(compared, tmp_path):
    figures.save(compared, tmp_path / "whole")
    expected = sorted(path.name for path in (tmp_path / "whole").iterdir())
    for operation in sampled_operations(60):
        folder = tmp_path / str(operation)
        folder.mkdir()
        if not is_killed(operation, figures.save, compared, folder / "out"):
            break
        if (folder / "out").exists():  # killed when only the temporary folder was left to remove
            assert sorted(path.name for path in (folder / "out").iterdir()) == expected
            (folder / "out").rename(folder / "first")
        figures.save(compared, folder / "out")
        assert sorted(path.name for path in (folder / "out").iterdir()) == expected
        assert not leftovers(folder)
    assert operation > 30


@pytest.mark.parametrize(
    ("speedup", "low", "high", "kind", "claim", "words"),
    [
        (1.0, 0.99, 1.02, EXACT, None, "Aquí apenas cambia el tiempo; el resultado es el mismo."),
        (0.5, 0.4, 0.6, EXACT, None, "Aquí tarda 2,00 veces lo que tardaba; el resultado es el mismo."),
        (1.2, 0.9, 1.6, EXACT, None, "Aquí la ganancia no se distingue del ruido (0,90 a 1,60 veces); el"),
        (3.5, 3.2, 3.6, TRADE, (2, 3), "Aquí va 3,50 veces más rápido, más que las 2 a 3 veces de la guía; cambia"),
        (1.4, 1.3, 1.5, TRADE, (2, 3), "Aquí va 1,40 veces más rápido, menos que las 2 a 3 veces"),
        (12.0, 1.9, 13.0, TRADE, (2, 2), "Aquí va 12,0 veces más rápido, en línea con las 2 veces"),
    ],
)
def test_summarize_compares_measured_speedup_with_the_claimed_range(speedup, low, high, kind, claim, words):
    technique = Technique("name", "Título", kind, claim=claim)
    assert summarize(technique, speedup, low, high).startswith(words)


def test_cumulative_configs_include_all_previous_changes():
    stacked = cumulative(baseline_of(TrainConfig(model="tiny")), Setting(4, cuts=True, halves=True, device="cpu"))
    last, fast = stacked[-1][1:]
    assert (last.padding, last.cls_only, last.max_length) == ("dynamic", True, 128)
    assert (last.precision, last.freeze_layers, last.cache_features) == ("auto", 2, True)
    assert fast == Fast.ALL
    assert stacked[0][2] == Fast.NONE
    first = stacked[0][1]
    assert (first.padding, first.precision, first.freeze_layers, first.batch_size) == ("max_length", "fp32", 0, 16)


def test_ladder_on_a_gpu_leaves_out_the_dropout_of_cpus():
    on_cpu, on_gpu = ({t.name for t in ladder(Setting(4, True, True, device))} for device in ("cpu", "cuda"))
    assert on_cpu - on_gpu == {"block_dropout"}


@pytest.mark.parametrize("alone", [Fast.FUSED_ADAMW, Fast.BLOCK_DROPOUT])
def test_build_with_one_fast_implementation_uses_torch_for_the_others(alone, config, notices):
    tokenizer = load_tokenizer(config.model, notices.texts)
    model = engines.classifier(config, notices, load_encoder(config.model, tokenizer, config.seed))
    table = encode(notices.texts, tokenizer, config.max_length)
    engine = engines.build(config, notices, table, model, "fp32", CPU, fast=alone)
    assert bool(engine.optimizer.defaults["fused"]) == (alone == Fast.FUSED_ADAMW)
    assert any(isinstance(m, BlockDropout) for m in model.modules()) == (alone == Fast.BLOCK_DROPOUT)


@given(st.integers(1, 4096))
def test_gradient_accumulation_keeps_the_effective_batch_of_any_size(rows):
    technique = next(t for t in individual(Setting(4, False, True, "cpu"), rows) if t.name == "gradient_accumulation")
    accumulated = TrainConfig(batch_size=rows).replace(**technique.changes)
    assert accumulated.effective_batch_size == rows
    assert accumulated.batch_size <= max(1, rows // 4)


def test_compare_with_zero_steps_raises_user_error():
    with pytest.raises(UserError, match="steps = 0"):
        compare.compare(TrainConfig(model="tiny"), 0)


def small_engine(precision="fp32", frozen=0):
    model = small_model()
    freeze(model, frozen)
    return engine(model, objective(), NO_SCALING, precision)


def count(parameters):
    return sum(p.numel() for p in parameters)


def linear_parameters(model):
    return [p for m in model.modules() if isinstance(m, nn.Linear) for p in m.parameters()]


def test_traffic_of_fp32_step_has_no_casts_and_forty_bytes_per_trained_parameter():
    made = small_engine()
    trained = count(made.model.parameters())
    moved = compare.traffic(made, [batch(4)])
    assert moved["forward"] == moved["backward"] == 0
    assert moved["clipping"] == 12 * trained
    assert moved["update"] == 28 * trained
    assert moved["loading"] == 2 * 2 * 4 * 11 * 8  # ids and mask, int64, read and written


def test_traffic_in_bf16_counts_casts_once_per_micro_batch():
    made = small_engine("bf16")
    weights = count(linear_parameters(made.model))
    assert compare.traffic(made, [batch(4)])["forward"] == 6 * weights
    assert compare.traffic(made, split_batch(batch(8), 4))["forward"] == 2 * 6 * weights


def test_traffic_in_bf16_counts_frozen_weights_unless_their_output_is_cached():
    made = small_engine("bf16", frozen=1)
    every, trained = linear_parameters(made.model), [p for p in linear_parameters(made.model) if p.requires_grad]
    assert count(trained) < count(every)
    assert compare.traffic(made, [batch(4)])["forward"] == 6 * count(every)
    made.table = FrozenFeatures(None, None, None, None)
    moved = compare.traffic(made, [batch(4)])
    assert moved["forward"] == moved["backward"] == 6 * count(trained)
