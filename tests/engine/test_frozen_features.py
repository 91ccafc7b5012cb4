"""Cached features of frozen layers: exact logits, gradients, losses and metrics; cache files and their limits."""

import os

import numpy as np
import pytest
import torch

from ocensa_nb.engine import frozen_features
from ocensa_nb.errors import UserError
from ocensa_nb.models.classifier import count_parameters, freeze
from ocensa_nb.models.layers import layers
from ocensa_nb.models.tokens import TokenTable
from ocensa_nb.runs import array_cache
from ocensa_nb.training import train
from tests.helpers.families import CLS_FAMILIES, FAMILIES, IDS, classifier, train_steps

LENGTHS = np.array([7, 3, 5, 6])
TABLE = TokenTable(
    np.concatenate([IDS[row, :length].numpy() for row, length in enumerate(LENGTHS)]).astype(np.int32),
    np.concatenate([[0], np.cumsum(LENGTHS)]),
    pad_id=0,
    max_length=16,
)
ROWS = np.array([2, 0, 3])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("k", [1, 2, 3])
def test_cached_features_give_the_logits_and_gradients_of_the_full_encoder(family, k):
    model = classifier(family)
    freeze(model, k)
    counted = count_parameters(model)
    hidden = frozen_features.build(model, TABLE, k, "fp32")
    assert isinstance(hidden, frozen_features.FrozenFeatures)
    assert count_parameters(model) == counted
    model.eval()
    seen = []
    for table in (TABLE, hidden):
        model.zero_grad()
        logits = model(*table.batch(ROWS))
        sum(values.square().sum() for values in logits.values()).backward()
        gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        seen.append((logits, gradients))
    torch.testing.assert_close(seen[0][0], seen[1][0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(seen[0][1], seen[1][1], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("k", [1, 2, 3])
def test_cached_features_after_60_steps_give_the_logits_of_the_full_encoder(family, k):
    """Train on cached features, then run the full encoder: a change of the frozen part would show."""
    model = classifier(family).eval()
    freeze(model, k)
    assert model.shorten(*TABLE.sample()) == (family in CLS_FAMILIES)
    hidden = frozen_features.build(model, TABLE, k, "fp32")
    if isinstance(hidden, TokenTable):
        pytest.skip(f"{family} cannot start at layer {k}: it is trained without cached features")
    train_steps(model, lambda: model(*hidden.batch(ROWS)))
    with torch.no_grad():
        cached, whole = (model(*table.batch(ROWS)) for table in (hidden, TABLE))
    torch.testing.assert_close(cached, whole, atol=1e-6, rtol=1e-6)


def test_fit_with_feature_cache_has_the_losses_and_metrics_of_fit_without(config, notices, tmp_path):
    runs = [
        train.fit(config.replace(out=str(tmp_path / str(cached)), freeze_layers=k, cache_features=cached), notices)
        for k, cached in ((2, True), (-2, False))  # of four layers: the same two
    ]
    assert [run.metadata["frozen_layers"] for run in runs] == [2, 2]
    losses = [[line["loss"] for line in run.history() if "step" in line] for run in runs]
    np.testing.assert_allclose(losses[0], losses[1], atol=1e-5)
    # The confidences differ in their last bits, which may move a row to another bin of the calibration error.
    cached, computed = ({k: v for k, v in run.metrics.items() if k != "calibration"} for run in runs)
    assert cached == computed


def test_build_with_repeated_texts_stores_their_features_once():
    twice = TokenTable(
        np.concatenate([TABLE.ids, TABLE.ids]),
        np.concatenate([TABLE.offsets, TABLE.offsets[1:] + TABLE.offsets[-1]]),
        pad_id=0,
        max_length=16,
    )
    model = classifier("bert").eval()
    freeze(model, 2)
    hidden = frozen_features.build(model, twice, 2, "fp32")
    assert len(hidden) == 8
    assert len(hidden.hidden) == len(TABLE.ids)
    torch.testing.assert_close(hidden.batch(ROWS)[0], hidden.batch(ROWS + 4)[0])


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_build_with_cached_file_reads_it_without_computing(dtype, tmp_path, monkeypatch, capsys):
    model = classifier("bert")
    freeze(model, 2)
    first = frozen_features.build(model, TABLE, 2, dtype, tmp_path)
    assert "se calculan y se guardan" in capsys.readouterr().out
    monkeypatch.setattr(frozen_features, "compute", None)
    second = frozen_features.build(model, TABLE, 2, dtype, tmp_path)
    assert "ya calculadas" in capsys.readouterr().out
    assert torch.equal(first.hidden, second.hidden)


@pytest.mark.parametrize("on_disk", [True, False])
def test_build_with_values_beyond_fp16_stores_them_in_fp32_and_reports_it(on_disk, tmp_path, capsys):
    model = classifier("bert")
    freeze(model, 2)
    with torch.no_grad():
        layers(model.encoder)[1].output.LayerNorm.weight.fill_(1e5)
    folder = tmp_path / "cache" if on_disk else None
    hidden = frozen_features.build(model, TABLE, 2, "fp16", folder)
    assert "mayores que el máximo de fp16 (65 504)" in capsys.readouterr().out
    assert hidden.hidden.dtype == torch.float32
    assert hidden.hidden.abs().max() > 65_504
    assert torch.equal(hidden.hidden, frozen_features.build(model, TABLE, 2, "fp32").hidden)
    assert len(list(tmp_path.rglob("*.bin"))) == on_disk  # and no file of infinite values


def test_cache_key_depends_on_depth_weights_texts_and_precision(tmp_path):
    def keys(k=2, seed=0, table=TABLE, precision="fp32"):
        model = classifier("bert")
        freeze(model, k)
        with torch.no_grad():
            model.encoder.embeddings.word_embeddings.weight[7] += seed
        return frozen_features._key(model, table, k, precision, torch.device("cpu"))

    other = TokenTable(TABLE.ids[::-1].copy(), TABLE.offsets, 0, 16)
    assert keys() == keys()
    assert len({keys(), keys(k=1), keys(seed=1), keys(table=other), keys(precision="bf16")}) == 5


@pytest.mark.parametrize("damage", ["truncated", "flipped bit", "foreign checksum", "damaged checksum"])
def test_build_with_damaged_or_foreign_cache_file_computes_it_again(damage, tmp_path, capsys):
    model = classifier("bert")
    freeze(model, 2)
    first = frozen_features.build(model, TABLE, 2, "fp32", tmp_path)
    data, checksum = next(tmp_path.glob("*.bin")), next(tmp_path.glob("*.json"))
    whole = bytearray(data.read_bytes())
    if damage == "truncated":
        data.write_bytes(whole[:-4])
    elif damage == "flipped bit":
        whole[100] ^= 1
        data.write_bytes(whole)
    else:
        checksum.write_text("{" if damage == "damaged checksum" else '{"shape": [1, 1], "pages": ""}')
    capsys.readouterr()
    again = frozen_features.build(model, TABLE, 2, "fp32", tmp_path)
    assert "se calculan y se guardan" in capsys.readouterr().out
    assert torch.equal(first.hidden, again.hidden)


def test_build_without_disk_space_keeps_features_in_memory_and_reports_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(array_cache, "SPARE_BYTES", 2**62)
    model = classifier("bert")
    freeze(model, 2)
    assert isinstance(frozen_features.build(model, TABLE, 2, "fp32", tmp_path), frozen_features.FrozenFeatures)
    assert "no hay espacio en disco" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_build_on_disk_that_fills_up_leaves_no_files(tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(array_cache, "_reserve", full)
    model = classifier("bert")
    freeze(model, 2)
    assert isinstance(frozen_features.build(model, TABLE, 2, "fp32", tmp_path), frozen_features.FrozenFeatures)
    assert "no hay espacio en disco" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_build_larger_than_memory_maps_the_file(tmp_path, monkeypatch):
    model = classifier("bert").eval()
    freeze(model, 2)
    expected = frozen_features.build(model, TABLE, 2, "fp32").batch(ROWS)
    monkeypatch.setattr(frozen_features, "MEMORY_SHARE", 0.0)
    mapped = frozen_features.build(model, TABLE, 2, "fp32", tmp_path)
    torch.testing.assert_close(mapped.batch(ROWS), expected)


def test_make_room_removes_the_least_recently_used_entry(tmp_path, monkeypatch):
    for number, key in enumerate(("old", "new")):
        with array_cache.write(tmp_path, key, (10, 10), np.float32) as array:
            array[:] = number
        os.utime(tmp_path / f"{key}.json", (number, number))
    monkeypatch.setattr(array_cache, "KEPT_BYTES", 900)
    assert array_cache.make_room(tmp_path, 400)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["new.bin", "new.json"]
    assert not array_cache.make_room(tmp_path, 901)


def test_fit_without_memory_or_disk_for_features_trains_uncached_and_reports_it(
    config, notices, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(frozen_features, "MEMORY_SHARE", 0.0)
    monkeypatch.setattr(array_cache, "SPARE_BYTES", 2**62)
    run = train.fit(config.replace(out=str(tmp_path / "run"), epochs=1, seed=77), notices)  # a seed without cache
    assert "no caben en memoria ni en disco" in capsys.readouterr().out
    assert run.metrics["epochs"] == 1


def test_build_for_encoder_that_cannot_be_split_returns_the_token_table(monkeypatch, capsys):
    model = classifier("bert")
    monkeypatch.setattr(model, "frozen_forward", lambda k: lambda ids, mask: model.encoder(ids, mask).last_hidden_state)
    assert frozen_features.build(model, TABLE, 1, "fp32") is TABLE
    assert "no permite separar" in capsys.readouterr().out


def test_build_without_memory_for_the_comparison_raises_user_error_and_is_not_reported_as_unsupported(
    monkeypatch, capsys
):
    def no_memory(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    model = classifier("bert")
    monkeypatch.setattr(model, "frozen_forward", lambda k: no_memory)
    with pytest.raises(UserError, match="No hay memoria para calcular unos pocos avisos"):
        frozen_features.build(model, TABLE, 1, "fp32")
    assert "no permite separar" not in capsys.readouterr().out
