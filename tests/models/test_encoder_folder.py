"""Encoder folders copied by users: without tokenizer, with prefixed weight names, with missing layers."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModel, BertConfig, BertModel

from ocensa_nb.errors import UserError
from ocensa_nb.models import catalogue, tokenizer_checks
from ocensa_nb.training import train

LETTERS = "abcdefghijklmnopqrstuvwxyz"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ["Válvula", "válvula", "Bomba", "bomba", "fuga", "Fuga"]
CASED = [*SPECIAL, *WORDS, *LETTERS, *LETTERS.upper(), *"áéíóúñ", *(f"##{c}" for c in LETTERS + "áéíóúñ")]
UNCASED = [piece for piece in CASED if piece in SPECIAL or piece == piece.lower()]
ENGLISH = [piece for piece in UNCASED if piece.isascii()]

# BERT's tokenizer of that version keeps the case if no tokenizer_config.json says otherwise.
lowercases_by_default = pytest.mark.skipif(
    transformers.__version__.startswith("5.0."), reason="transformers 5.0 does not lowercase by default"
)
# That version renames weights by other rules: such a folder is refused, or saved with its prefix.
renames_weights = pytest.mark.skipif(
    transformers.__version__.startswith("5.0."), reason="transformers 5.0 keeps some prefixes of weights"
)


def shape(layers: int = 3, vocabulary: int = len(CASED)) -> BertConfig:
    return BertConfig(
        vocab_size=vocabulary,
        hidden_size=16,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=128,
    )


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return BertModel(shape()).state_dict()


@pytest.fixture
def folder(tmp_path: Path, weights: dict[str, torch.Tensor]) -> Path:
    """Return a folder with config, weights and vocabulary, but no `tokenizer_config.json`."""
    path = tmp_path / "beto"
    shape().save_pretrained(path)
    write(path, weights)
    (path / "vocab.txt").write_text("\n".join(CASED) + "\n", encoding="utf-8")
    return path


def write(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, folder / "model.safetensors")


def vocabulary(folder: Path, pieces: list[str], **options: bool) -> None:
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    shape(vocabulary=len(pieces)).save_pretrained(folder)
    if options:
        (folder / "tokenizer_config.json").write_text(json.dumps(options), encoding="utf-8")


def load(folder: Path):
    return catalogue.load_encoder(str(folder), catalogue.load_tokenizer(str(folder)))


@pytest.mark.parametrize(
    ("moved", "to", "message"),
    [
        ("vocab.txt", "notes.txt", r"falta el tokenizador \(tokenizer.json o vocab.txt"),
        ("vocab.txt", "vocab.json", r"falta merges\.txt"),
        ("model.safetensors", "notes.txt", r"faltan los pesos \(model.safetensors o pytorch_model.bin\)"),
    ],
)
def test_load_incomplete_folder_names_the_missing_file(folder, moved, to, message):
    (folder / moved).rename(folder / to)
    with pytest.raises(UserError, match=message):
        load(folder)


@pytest.fixture
def hub(folder, monkeypatch, tmp_path):
    """Return the download requests to a complete hub, and a cached snapshot without tokenizer.

    `AutoModel.from_pretrained` leaves such a snapshot: config and weights only.
    """
    import huggingface_hub
    from huggingface_hub import constants, file_download

    asked: list[list[str]] = []
    cache = tmp_path / "hub"
    commit = "0" * 40
    snapshot = cache / "models--dccuchile--bert-base-spanish-wwm-cased/snapshots" / commit
    shutil.copytree(folder, snapshot)
    (snapshot / "vocab.txt").unlink()
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs/main").write_text(commit)

    def snapshot_download(hub_id, allow_patterns):
        asked.append(allow_patterns)
        shutil.copy(folder / "vocab.txt", snapshot)
        return str(snapshot)

    files = ["config.json", "model.safetensors", "pytorch_model.bin", "vocab.txt", "tf_model.h5"]
    for module in (constants, file_download):
        monkeypatch.setattr(module, "HF_HUB_CACHE", str(cache), raising=False)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.setattr(catalogue, "_files_on_the_hub", lambda *_: files)
    return asked, snapshot


def test_locate_hub_cache_without_tokenizer_downloads_the_missing_files(hub):
    asked, snapshot = hub
    assert not catalogue.is_here("beto")
    assert catalogue.locate("beto") == str(snapshot)
    assert len(asked) == 1
    assert catalogue.is_here("beto")
    assert len(catalogue.load_tokenizer("beto")) == len(CASED)
    assert len(asked) == 1  # the snapshot is complete: no more downloads


@pytest.mark.parametrize("cached", ["model.safetensors", "pytorch_model.bin"])
def test_locate_hub_cache_with_weights_downloads_no_other_weights(hub, cached):
    asked, snapshot = hub
    (snapshot / "model.safetensors").rename(snapshot / cached)
    catalogue.locate("beto")
    assert [name for name in ("model.safetensors", "pytorch_model.bin") if name in asked[0]] == [cached]


def test_load_tokenizer_of_incomplete_hub_cache_offline_names_the_missing_file(hub, monkeypatch):
    import huggingface_hub

    monkeypatch.undo()
    asked, snapshot = hub
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(snapshot.parents[2]))
    monkeypatch.setattr(huggingface_hub.file_download, "HF_HUB_CACHE", str(snapshot.parents[2]), raising=False)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", raise_connection_error)
    with pytest.raises(UserError, match=r"incompleta: falta el tokenizador .*huggingface\.co"):
        catalogue.load_tokenizer("beto")
    assert asked == []


def raise_connection_error(*_, **__):
    raise ConnectionError


@lowercases_by_default
def test_cased_vocabulary_without_tokenizer_config_keeps_case_and_accents(folder, capsys):
    tokenizer = catalogue.load_tokenizer(str(folder))
    assert tokenizer.tokenize("Válvula de Bomba") == ["Válvula", "d", "##e", "Bomba"]
    assert "mayúsculas" in capsys.readouterr().out


def test_cased_vocabulary_with_wrong_tokenizer_config_keeps_case_and_accents(folder):
    vocabulary(folder, CASED, do_lower_case=True)
    assert catalogue.load_tokenizer(str(folder)).tokenize("Válvula") == ["Válvula"]


def test_cased_tokenizer_json_without_tokenizer_config_keeps_case_and_accents(folder):
    """The normalizer in `tokenizer.json` is cased, but transformers ignores it without `do_lower_case`."""
    catalogue.load_tokenizer(str(folder)).save_pretrained(folder)
    for name in ("tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
        (folder / name).unlink(missing_ok=True)
    assert catalogue.load_tokenizer(str(folder)).tokenize("Válvula") == ["Válvula"]


@lowercases_by_default
@pytest.mark.parametrize(("pieces", "text", "tokens"), [(UNCASED, "VÁLVULA", "válvula"), (ENGLISH, "BÓMBA", "bomba")])
def test_uncased_vocabulary_is_lowercased_and_keeps_the_accents_that_it_has(folder, capsys, pieces, text, tokens):
    vocabulary(folder, pieces)
    assert catalogue.load_tokenizer(str(folder)).tokenize(text) == [tokens]
    assert (capsys.readouterr().out == "") == (pieces == ENGLISH)


def test_cased_tokenizer_saved_and_loaded_is_still_cased(folder, tmp_path):
    shape().save_pretrained(tmp_path / "saved")
    write(tmp_path / "saved", BertModel(shape()).state_dict())
    catalogue.load_tokenizer(str(folder)).save_pretrained(tmp_path / "saved")
    assert catalogue.load_tokenizer(str(tmp_path / "saved")).tokenize("Válvula") == ["Válvula"]


@pytest.mark.parametrize("pieces", [CASED[:40], [*CASED, "otra"]])
def test_load_encoder_with_vocabulary_of_another_size_names_both_sizes(folder, pieces):
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    with pytest.raises(UserError, match=rf"{len(pieces)} .* {len(CASED)}"):
        load(folder)


def test_fit_with_many_unknown_tokens_raises_user_error_with_their_share(folder, config, notices, tmp_path):
    vocabulary(folder, [piece for piece in CASED if piece not in LETTERS], do_lower_case=False)
    shape(vocabulary=len(CASED) - len(LETTERS)).save_pretrained(folder)
    pieces = len(CASED) - len(LETTERS)
    write(folder, BertModel(shape(vocabulary=pieces)).state_dict())
    with pytest.raises(UserError, match=r"\d+ % de los tokens .* desconocidos"):
        train.fit(config.replace(model=str(folder), out=str(tmp_path / "run")), notices)
    assert not (tmp_path / "run").exists()


@lowercases_by_default
def test_describe_shows_words_as_tokenised(folder):
    texts = ["Fuga en Válvula", "Válvula rota"]
    cased = catalogue.load_tokenizer(str(folder))
    vocabulary(folder, ENGLISH)
    stripping = catalogue.load_tokenizer(str(folder))
    assert "Válvula → Válvula" in tokenizer_checks.describe(0.0, texts, cased)
    assert "Válvula → v·a·l·v·u·l·a" in tokenizer_checks.describe(0.0, texts, stripping)
    assert tokenizer_checks.describe(0.123, texts, cased).startswith("Tokens desconocidos: 12,3 %.")


@renames_weights
@pytest.mark.parametrize("prefix", ["encoder.", "module.bert.", "bert."])
def test_prefixed_weights_are_loaded_without_the_prefix(folder, weights, prefix, capsys):
    write(folder, {prefix + name: tensor for name, tensor in weights.items()})
    loaded = load(folder).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in weights.items() if "pooler" not in name)
    if prefix != "bert.":  # transformers removes this prefix itself
        assert f"«{prefix}»" in capsys.readouterr().out


@renames_weights
def test_prefixed_weights_are_saved_without_the_prefix(folder, weights, tmp_path):
    write(folder, {f"module.bert.{name}": tensor for name, tensor in weights.items()})
    load(folder).save_pretrained(tmp_path / "saved")
    saved = load_file(tmp_path / "saved/model.safetensors")
    assert {name for name in weights if "pooler" not in name} == saved.keys()


def test_prefixed_weights_in_a_bin_file_are_loaded_without_the_prefix(folder, weights):
    (folder / "model.safetensors").unlink()
    torch.save({f"module.bert.{name}": tensor for name, tensor in weights.items()}, folder / "pytorch_model.bin")
    assert torch.equal(load(folder).embeddings.word_embeddings.weight, weights["embeddings.word_embeddings.weight"])


@pytest.mark.parametrize(("prefix", "lost"), [("", "embeddings.word"), ("encoder.", "encoder.layer.0.")])
def test_load_encoder_with_missing_weights_names_them(folder, weights, lost, prefix):
    write(folder, {prefix + name: tensor for name, tensor in weights.items() if lost not in name})
    with pytest.raises(UserError, match=lost.strip(".").replace(".", r"\.")):
        load(folder)


def test_load_encoder_without_pooler_weights_is_accepted(folder, weights):
    write(folder, {name: tensor for name, tensor in weights.items() if "pooler" not in name})
    assert load(folder).config.num_hidden_layers == 3


def test_load_encoder_with_more_layers_than_the_config_names_the_extra_weights(folder):
    shape(layers=2).save_pretrained(folder)
    with pytest.raises(UserError, match=r"encoder\.layer\.2"):
        load(folder)


def test_load_encoder_with_weights_of_another_width_raises_user_error(folder, weights):
    write(folder, {name: tensor[..., :-1].contiguous() for name, tensor in weights.items()})
    with pytest.raises(UserError, match="No se pudo cargar el codificador"):
        load(folder)


def test_load_encoder_with_legacy_layer_norm_names_loads_the_same_weights(folder, weights):
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    renamed = {}
    for name, tensor in weights.items():
        for new, legacy in old.items():
            name = name.replace(new, legacy)
        renamed[name] = tensor
    write(folder, renamed)
    expected, loaded = AutoModel.from_pretrained(folder).state_dict(), load(folder).state_dict()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in expected.items() if "pooler" not in name)
