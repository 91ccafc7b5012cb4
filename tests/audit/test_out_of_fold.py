"""Answers of the simple model for rows that it was not fitted on."""

import threading

import numpy as np

from ocensa_nb.audit import out_of_fold
from ocensa_nb.audit.audit import settings
from ocensa_nb.audit.out_of_fold import fold_rows, predict_out
from ocensa_nb.data import synthetic


def test_fits_one_after_another_because_liblinear_shares_its_generator(monkeypatch):
    threads, fit = [], out_of_fold.LinearModel.fit_counts

    def recorded(*arguments):
        threads.append(threading.current_thread())
        return fit(*arguments)

    monkeypatch.setattr(out_of_fold.LinearModel, "fit_counts", recorded)
    texts = synthetic.generate(80, seed=1)["descripcion"].tolist()
    labels = {"modo": np.arange(80) % 3}
    split, folds = fold_rows(np.arange(80), labels, settings(""))
    found = predict_out(texts, np.arange(80), labels, split, folds, {"fewer": split["train"][::2]})
    assert set(threads) == {threading.main_thread()}
    assert len(threads) == out_of_fold.FOLDS + len(found.without)
