"""Token table and epoch batches: same ids as the tokenizer, every row once, little padding."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ocensa_nb.models import catalogue, tokens

TEXTS = ["fuga de crudo", "ruido en el rodamiento de la bomba P-301", "no arranca"] * 7 + ["paro"]


@pytest.fixture(scope="module")
def tokenizer():
    return catalogue.load_tokenizer("tiny", TEXTS)


def test_batch_matches_the_padding_of_the_tokenizer(tokenizer):
    table = tokens.encode(TEXTS, tokenizer, max_length=8)
    rows = np.array([3, 0, 21, 1])
    ids, mask = table.batch(rows)
    expected = tokenizer(
        [TEXTS[r] for r in rows], truncation=True, max_length=8, padding="longest", return_tensors="pt"
    )
    assert ids.tolist() == expected["input_ids"].tolist()
    assert mask.tolist() == expected["attention_mask"].tolist()
    wide, _ = table.batch(rows, "max_length")
    assert wide.shape == (4, 8)


def test_encode_in_chunks_returns_the_same_table(tokenizer, monkeypatch):
    whole = tokens.encode(TEXTS, tokenizer, 16)
    monkeypatch.setattr(tokens, "CHUNK", 5)
    parts = tokens.encode(TEXTS, tokenizer, 16)
    np.testing.assert_array_equal(whole.ids, parts.ids)
    np.testing.assert_array_equal(whole.offsets, parts.offsets)


@given(
    st.lists(st.integers(1, 120), min_size=1, max_size=400), st.integers(1, 40), st.integers(0, 3), st.integers(1, 4)
)
def test_epoch_batches_contain_every_row_once_and_are_reproducible(lengths, batch_size, seed, epoch):
    lengths = np.array(lengths)
    batches = list(tokens.epoch_batches(lengths, batch_size, seed, epoch))
    assert sorted(np.concatenate(batches)) == list(range(len(lengths)))
    assert len(batches) == -(-len(lengths) // batch_size)
    assert sum(len(b) < batch_size for b in batches) <= 1
    again = tokens.epoch_batches(lengths, batch_size, seed, epoch)
    assert all((a == b).all() for a, b in zip(batches, again, strict=True))


def test_epoch_batches_have_under_5_percent_padding_and_vary_by_epoch():
    lengths = np.random.default_rng(0).integers(10, 90, size=6400)
    batches = list(tokens.epoch_batches(lengths, 32, seed=0, epoch=1))
    padded = sum(len(b) * lengths[b].max() for b in batches)
    assert padded / lengths.sum() < 1.05
    other = list(tokens.epoch_batches(lengths, 32, seed=0, epoch=2))
    assert not np.array_equal(np.concatenate(batches), np.concatenate(other))


def test_recommend_max_length_truncates_at_most_one_percent_of_texts():
    lengths = np.concatenate([np.full(99, 40), [300]])
    assert tokens.recommend_max_length(lengths) == 48
    table = tokens.truncation_table(lengths, (32, 64))
    assert table["textos cortados (%)"].tolist() == [100.0, 1.0]
    by_class = tokens.truncation_by_class(lengths, ["a"] * 99 + ["b"], (64,))
    assert by_class["cortados a 64 (%)"].to_dict() == {"b": 100.0, "a": 0.0}


def test_take_and_unique_of_no_rows_are_empty_tables(tokenizer):
    none = tokens.encode(TEXTS, tokenizer, 16).take(np.array([], np.int64))
    distinct, entry = none.unique()
    for table in (none, distinct, none.take(np.array([], np.int64))):
        assert (len(table), len(table.ids), table.ids.dtype, table.offsets.dtype) == (0, 0, np.int32, np.int64)
    assert entry.tolist() == []


@given(st.lists(st.integers(1, 120), min_size=1, max_size=300), st.integers(1, 500))
def test_scoring_batches_contain_every_row_once_and_as_many_tokens_as_allowed(lengths, most):
    lengths = np.array(lengths)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tokens.SCORING_TOKENS, "cpu", most)
        batches = list(tokens.scoring_batches(lengths, torch.device("cpu")))
    assert sorted(np.concatenate(batches)) == list(range(len(lengths)))
    assert all(len(rows) == 1 or len(rows) * lengths[rows].max() <= most for rows in batches)
    for rows, following in itertools.pairwise(batches):
        assert lengths[rows].max() <= lengths[following].min()
        assert (len(rows) + 1) * lengths[following[0]] > most
