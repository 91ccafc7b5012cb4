"""Loading of encoders: embedded without network, hub with a timeout, weights verified."""

import shutil
import threading
import types

import pytest
import torch

from ocensa_nb.errors import UserError
from ocensa_nb.models import catalogue


@pytest.fixture
def no_hub(monkeypatch):
    """Simulate a hub that never answers."""
    import huggingface_hub

    stop = threading.Event()
    monkeypatch.setattr(catalogue, "HUB_SECONDS", 0.2)
    monkeypatch.setattr(catalogue, "_cached_snapshot", lambda hub_id: None)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: stop.wait(30))
    yield
    stop.set()


def test_load_embedded_encoder_without_network_succeeds(no_hub):
    tokenizer = catalogue.load_tokenizer("minilm")
    encoder = catalogue.load_encoder("minilm", tokenizer)
    assert encoder.config.hidden_size == 384
    assert encoder.dtype == torch.float32
    assert encoder.pooler is None


def test_load_embedded_encoder_with_wrong_sha256_raises_user_error(monkeypatch):
    monkeypatch.setattr(catalogue, "MINILM_SHA256", "0" * 64)
    catalogue._packaged_minilm.cache_clear()
    with pytest.raises(UserError, match="SHA-256"):
        catalogue.load_tokenizer("minilm")
    catalogue._packaged_minilm.cache_clear()


@pytest.mark.parametrize("name", ["beto", "beto-uncased", "distilbeto", "distilbert-multilingual", "alguien/modelo"])
def test_load_from_unreachable_hub_raises_user_error_with_alternatives(no_hub, name):
    with pytest.raises(UserError, match=r"huggingface.co.*minilm.*copia local"):
        catalogue.load_tokenizer(name)


def test_load_encoder_unknown_to_the_hub_suggests_the_nearest_name(monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError

    def unknown(*_, **__):
        raise HFValidationError("no such repository")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unknown)
    monkeypatch.setattr(catalogue, "_cached_snapshot", lambda hub_id: None)
    with pytest.raises(UserError, match="¿Quiso decir «distilbeto»"):
        catalogue.load_tokenizer("distilbet")


def test_tiny_encoder_is_reproducible_and_depends_on_the_seed():
    texts = ["fuga de crudo en bomba", "válvula trabada", "fuga de aceite"]
    tokenizers = [catalogue.load_tokenizer("tiny", texts) for _ in range(2)]
    assert tokenizers[0].get_vocab() == tokenizers[1].get_vocab()
    first, second, other = (catalogue.load_encoder("tiny", tokenizers[0], seed) for seed in (0, 0, 1))
    name = next(iter(first.state_dict()))
    assert torch.equal(first.state_dict()[name], second.state_dict()[name])
    assert not torch.equal(first.state_dict()[name], other.state_dict()[name])
    assert tokenizers[0].unk_token_id not in tokenizers[0]("valvula con fuga")["input_ids"]


def test_beto_random_has_the_shape_of_beto_and_keeps_the_random_state():
    state = torch.get_rng_state()
    encoder = catalogue.load_encoder("beto-random", catalogue.load_tokenizer("beto-random"))
    assert torch.equal(state, torch.get_rng_state())
    config = encoder.config
    assert (config.vocab_size, config.hidden_size, config.num_hidden_layers) == (31_002, 768, 12)


def test_load_encoder_from_local_folder_succeeds(run):
    tokenizer = catalogue.load_tokenizer(str(run.path / "encoder"))
    assert catalogue.load_encoder(str(run.path / "encoder"), tokenizer).config.hidden_size == 32


def test_vocabulary_note_of_non_spanish_vocabulary_warns_of_longer_texts():
    assert "con BETO los mismos avisos ocupan menos" in catalogue.vocabulary_note("minilm")
    assert "menos" not in catalogue.vocabulary_note("beto")


@pytest.mark.parametrize("status", [500, 503, 429])
def test_load_from_a_hub_that_answers_with_an_error_names_it(status, monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError

    def fail(*_, **__):
        response = types.SimpleNamespace(status_code=status, headers={}, request=None)
        raise HfHubHTTPError("server error", response=response)

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", fail)
    monkeypatch.setattr(catalogue, "_cached_snapshot", lambda hub_id: None)
    with pytest.raises(UserError, match=rf"huggingface.co responde con un error .HTTP {status}.*más tarde.*minilm"):
        catalogue.load_tokenizer("beto")


def test_encoder_attached_on_kaggle_is_found_by_its_name_and_the_search_is_bounded(monkeypatch, tmp_path):
    monkeypatch.setattr(catalogue, "_cached_snapshot", lambda hub_id: None)
    monkeypatch.setattr(catalogue, "KAGGLE_INPUT", tmp_path)
    monkeypatch.setattr(catalogue, "KAGGLE_ENTRIES", 30)
    for number in range(40):
        (tmp_path / f"photos/{number}").mkdir(parents=True)
    incomplete = tmp_path / "bert-base-spanish-wwm-cased"
    incomplete.mkdir()
    assert not catalogue.is_here("beto")
    versions = tmp_path / "models/ana/bert-base-spanish-wwm-cased/pytorch/default/1"
    for place in (versions, tmp_path / "datasets/ana/bert-base-spanish-wwm-cased"):
        shutil.copytree(catalogue.locate("minilm"), place)
        assert catalogue.locate("beto") == str(place)
        shutil.rmtree(place)
    deep = tmp_path / "/".join(["a"] * 10) / "bert-base-spanish-wwm-cased"
    shutil.copytree(catalogue.locate("minilm"), deep)
    assert not catalogue.is_here("beto")
