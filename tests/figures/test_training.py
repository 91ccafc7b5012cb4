"""The figures of the notices and of a training: what is drawn and read, and how the GIF shows a training settle."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image, ImageSequence

from ocensa_nb.errors import num
from ocensa_nb.figures import style, training
from ocensa_nb.runs.run import Run


def labels(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def test_class_sizes_are_sorted_and_counted():
    figure = training.class_sizes(pd.Series({"rara": 2, "común": 1500, "media": 40}), "modo")
    (axes,) = figure.axes
    assert labels(axes.yaxis) == ["común", "media", "rara"]
    assert [bar.get_width() for bar in axes.patches] == [1500, 40, 2]
    assert {"1 500", "40", "2"} <= {text.get_text() for text in axes.texts}
    assert "750 veces" in figure.get_supxlabel()
    assert "1 de las 3 tienen menos de 10" in figure.get_supxlabel()


def test_class_sizes_of_very_many_classes_are_one_bar_from_some_on():
    figure = training.class_sizes(pd.Series({f"c{i}": 100 - i for i in range(70)}), "modo")
    assert labels(figure.axes[0].yaxis)[-1] == "otras 10 clases"
    assert figure.axes[0].patches[-1].get_width() == sum(100 - i for i in range(60, 70))


def test_token_lengths_are_counted_in_bins_of_two():
    axes = training.token_lengths(np.array([4, 4, 5, 9]), 8).axes[0]
    assert {bar.get_x(): bar.get_height() for bar in axes.patches if bar.get_height()} == {4: 3, 8: 1}


def test_draw_scores_with_more_heads_than_colours_uses_distinct_lines():
    heads = [f"h{i}" for i in range(2 * len(style.COLOURS) + 1)]
    epochs = [{"epoch": epoch, **{f"{head}_f1": 0.5 for head in heads}} for epoch in (1, 2)]
    axes = Figure().subplots()
    lines = training.draw_scores(axes, heads, epochs)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == heads
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == len(heads)


@pytest.fixture
def copy(run, tmp_path):
    """Return a copy of the run that took long enough for a GIF of many frames."""
    metadata = {**run.metadata, "seconds": {"training": 60.0, "total": 60.0}}
    return Run(shutil.copytree(run.path, tmp_path / "run"), metadata, run.classes)


def frames(path):
    with Image.open(path) as gif:
        return [(np.asarray(frame.convert("RGB")), frame.info["duration"]) for frame in ImageSequence.Iterator(gif)]


def rewrite(run, change):
    lines = [change(line) for line in run.history()]
    (run.path / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines if line))


def test_training_gif_is_small_fits_a_notebook_and_pauses_on_the_last_frame(copy):
    path = training.training_gif(copy)
    drawn = frames(path)
    assert 2 <= len(drawn) <= training.GIF_FRAMES
    assert path.stat().st_size < 1_500_000
    assert 700 <= drawn[0][0].shape[1] <= 900
    assert drawn[-1][1] == training.HELD_MS == 3000
    assert not np.array_equal(drawn[0][0], drawn[-1][0])


def test_training_gif_of_short_training_has_two_frames(copy):
    copy.metadata["seconds"]["training"] = 0.0
    assert len(frames(training.training_gif(copy))) == 2


def test_training_gif_last_frame_shows_the_best_epoch_and_its_scores(copy):
    with style.style():
        drawn = training.TrainingAnimation(copy, copy.history())
        drawn.frame(len(copy.history()))
    best = copy.metrics["best_epoch"]
    kept = next(line for line in copy.history() if "step" not in line and line["epoch"] == best)
    assert f"Se guardó la época {best}" in drawn.caption.get_text()
    legend = [text.get_text() for text in drawn.scores[0].axes.get_legend().get_texts()]
    assert legend == [f"{head} {num(kept[f'{head}_f1'], 2)}" for head in copy.classes]
    hits = np.ma.filled(drawn.image.get_array(), np.nan)
    truth = np.zeros(len(copy.classes[copy.config.monitored_head]))
    for true, predicted, rows in kept["confusion"]:
        truth[true] += rows * (true == predicted)
    np.testing.assert_array_equal(np.nan_to_num(hits.diagonal()) > 0, truth > 0)


def test_training_gif_confusion_is_blank_before_epoch_1_and_updated_every_epoch(copy):
    rewrite(copy, lambda line: line if "step" in line else {**line, "confusion": [[0, line["epoch"], 3], [0, 0, 1]]})
    history = [*copy.history(), {"step": 10_000, "loss": 1.0}]  # the end shows the epoch that was kept
    ends = [place + 1 for place, line in enumerate(history) if "step" not in line]
    with style.style():
        drawn = training.TrainingAnimation(copy, history)
        drawn.frame(ends[0] - 1)
        assert drawn.image.get_array().mask.all()
        shares = []
        for known in (ends[0], ends[0] + 1, ends[1]):
            drawn.frame(known)
            shares.append(np.ma.filled(drawn.image.get_array(), -1))
    np.testing.assert_array_equal(shares[0], shares[1])
    assert not np.array_equal(shares[1], shares[2])
    assert (shares[2][0, 2], shares[2][0, 0], shares[2][0].sum()) == (0.75, 0.25, 1)
    assert (shares[2][1:] == -1).all()  # the classes without rows


def test_training_gif_of_one_step_is_none(copy):
    rewrite(copy, lambda line: line if line.get("step", 0) == 1 else None)
    assert training.training_gif(copy) is None
