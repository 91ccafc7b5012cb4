"""Memory estimate, compared with the tensors autograd saves and with the measured peak of a step on the CPU."""

import weakref

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import BertConfig, BertModel, DistilBertConfig, DistilBertModel

from ocensa_nb.benchmark import forecast
from ocensa_nb.config import TrainConfig, from_recipe
from ocensa_nb.engine import frozen_features, memory
from ocensa_nb.engine import step as engines
from ocensa_nb.engine.memory import MemoryEstimate, estimate_memory
from ocensa_nb.engine.optimizer import build_optimizer
from ocensa_nb.models import catalogue
from ocensa_nb.models.classifier import MultiHeadClassifier, freeze
from ocensa_nb.models.layers import use_block_dropout
from ocensa_nb.models.tokens import TokenTable
from ocensa_nb.runtime.precision import autocast
from ocensa_nb.training import train

ROWS, WIDTH, HIDDEN = 16, 64, 128
MASK = torch.ones(ROWS, WIDTH, dtype=torch.int64)
IDS = torch.randint(5, 300, MASK.shape, generator=torch.Generator().manual_seed(0))
HEADS = {"causa": 9}
T4 = 15e9  # bytes available of its nominal 16 GB
ENCODERS = {
    "bert": lambda: BertModel(
        BertConfig(
            vocab_size=300, hidden_size=HIDDEN, num_hidden_layers=4, num_attention_heads=4, intermediate_size=4 * HIDDEN
        ),
        add_pooling_layer=False,
    ),
    "distilbert": lambda: DistilBertModel(
        DistilBertConfig(vocab_size=300, dim=HIDDEN, n_layers=4, n_heads=4, hidden_dim=4 * HIDDEN)
    ),
}
CASES = [
    (family, k, cls_only, precision)
    for family in ENCODERS
    for k in (0, -2)
    for cls_only in (True, False)
    for precision in ("fp32", "bf16")
]


def case(family: str, k: int, cls_only: bool) -> tuple[TrainConfig, MultiHeadClassifier]:
    torch.manual_seed(0)
    config = TrainConfig(batch_size=ROWS, freeze_layers=k, cls_only=cls_only, max_length=WIDTH, heads={"causa": 1.0})
    model = MultiHeadClassifier(ENCODERS[family](), HEADS, 0.1)
    use_block_dropout(model)
    freeze(model, k)
    if cls_only:
        assert model.shorten(IDS, MASK)
    return config, model.train()


class LiveBytes(TorchDispatchMode):
    """Sum the storages of the live tensors that operations have returned; keep the peak."""

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[int, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self.live:
                    self.live[storage._cdata] = storage.nbytes()
                    weakref.finalize(storage, self.live.pop, storage._cdata, None)
        self.peak = max(self.peak, sum(self.live.values()))
        return out


@pytest.mark.parametrize(("family", "k", "cls_only", "precision"), CASES)
def test_estimated_activations_match_the_tensors_autograd_saves(family, k, cls_only, precision):
    config, model = case(family, k, cls_only)
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    saved: dict[int, int] = {}

    def record(tensor: torch.Tensor) -> torch.Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(record, lambda tensor: tensor),
        autocast(precision, torch.device("cpu")),
    ):
        logits = model(IDS, MASK)["causa"]
    measured = sum(size for pointer, size in saved.items() if pointer not in parameters)
    estimate = estimate_memory(config, model, np.full(ROWS, WIDTH), precision, on_cpu=True)
    half = precision != "fp32"
    copies = half * 2 * memory._trained_matrices(model)
    working = ROWS * WIDTH * HIDDEN * ((2 * 4 + 2) * (2 if half else 4) + 4)
    assert estimate.activations - working + copies == pytest.approx(measured, rel=0.06)
    assert logits.requires_grad


QUICK_PEAKS = [("bert", 0, True, "fp32"), ("bert", 2, False, "bf16"), ("distilbert", 0, False, "fp32")]


@pytest.mark.parametrize(
    ("family", "k", "cls_only", "precision"),
    [case if case in QUICK_PEAKS else pytest.param(*case, marks=pytest.mark.slow) for case in CASES],
)
def test_estimated_total_is_just_above_the_measured_peak_of_a_step(family, k, cls_only, precision):
    config, model = case(family, k, cls_only)
    engine = engines.Engine(
        model=model,
        table=None,
        objective=engines.Objective({"causa": 1.0}, {"causa": torch.ones(model.heads["causa"][-1].out_features)}, 0.0),
        optimizer=build_optimizer(model, config),
        scaler=torch.amp.GradScaler("cpu", enabled=False),
        precision=precision,
        max_grad_norm=1.0,
        device=torch.device("cpu"),
        forward=model,
    )
    micro = {"inputs": IDS, "attention_mask": MASK, "labels": {"causa": torch.zeros(ROWS, dtype=torch.int64)}}
    with LiveBytes() as live:
        for _ in range(2):  # AdamW allocates its moments in the first step
            engine.step([micro])
    weights = sum(p.nbytes for p in model.parameters())
    estimate = estimate_memory(
        config.replace(cache_features=False), model, np.full(ROWS, WIDTH), precision, on_cpu=True
    )
    assert 0.95 * estimate.total <= 1.25 * (live.peak + weights)
    assert live.peak + weights <= 1.03 * estimate.total


def test_estimate_of_model_on_meta_device_equals_that_of_the_real_model():
    config, model = case("bert", 0, True)
    real = estimate_memory(config, model, np.full(ROWS, WIDTH), "bf16", on_cpu=True)
    assert estimate_memory(config, model.to("meta"), np.full(ROWS, WIDTH), "bf16", on_cpu=True) == real


def test_estimate_uses_longest_text_if_padding_is_dynamic_else_max_length():
    config, model = case("bert", 0, True)
    short = np.array([5, 32, 7])
    dynamic = estimate_memory(config, model, short, "fp32", on_cpu=False)
    fixed = estimate_memory(config.replace(padding="max_length"), model, short, "fp32", on_cpu=False)
    assert fixed.activations == 2 * dynamic.activations


def test_describe_estimate_over_memory_suggests_smaller_micro_batches():
    config = from_recipe("t4")
    estimate = MemoryEstimate(weights=10**9, optimizer=10**9, activations=8 * 10**9)
    assert "No cabe" not in memory.describe(estimate, config, 15e9, on_cpu=False)
    note = memory.describe(estimate, config, 5e9, on_cpu=False)
    assert "batch_size = 16 y gradient_accumulation_steps = 4" in note
    assert "freeze_layers" in memory.describe(estimate, config, 1e9, on_cpu=False)


def test_recipes_t4_for_beto_and_minilm_fit_in_a_t4(monkeypatch):
    monkeypatch.setattr(catalogue, "_cached_snapshot", lambda hub_id: None)  # use the catalogue entry
    table = memory.memory_by_recipe(["beto", "minilm"], ["t4", "t4-small"], T4)
    assert (table[f"cabe en {T4 / 2**30:.0f} GiB"] == "sí").all()
    assert 3 < table.loc[("beto", "t4"), "GiB"] < 8
    assert table.loc[("beto", "t4-small"), "activaciones"] == pytest.approx(
        table.loc[("beto", "t4"), "activaciones"] / 4
    )


def test_forecast_reports_memory_of_config_and_free_memory(notices, config):
    output = forecast.Forecast(notices).memory(config)
    assert "Memoria del entrenamiento: hasta" in output
    assert "GiB libres en esta máquina" in output


def test_fit_prints_memory_estimate_before_expected_time(config, notices, tmp_path, capsys):
    train.fit(config.replace(out=str(tmp_path / "run"), epochs=1), notices)
    output = capsys.readouterr().out
    assert output.index("Memoria del entrenamiento: hasta") < output.index("Tiempo previsto")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("k", [2, 4])
def test_estimated_features_equal_the_bytes_of_the_feature_table(k, precision):
    config, model = case("bert", k, False)
    lengths = np.array([7, 30, 64])
    ids = np.arange(lengths.sum(), dtype=np.int32) % 300
    table = TokenTable(ids, np.concatenate([[0], np.cumsum(lengths)]), pad_id=0, max_length=WIDTH)
    cached = frozen_features.build(model, table, k, precision)
    assert estimate_memory(config, model, lengths, precision, on_cpu=True).features == cached.hidden.nbytes


def test_memory_note_of_unknown_encoder_says_no_estimate_without_error():
    config, model = case("bert", 0, False)
    model.encoder = torch.nn.Linear(3, 3)
    note = memory.memory_note(config, model, np.array([5]), "fp32", torch.device("cpu"))
    assert "no se puede calcular" in note
