"""One visual language: figures look the same under any style of the user's, and the GIF shows a training settle."""

import io
import json
import shutil
import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image, ImageSequence

from ocensa_nb.figures import animation, training
from ocensa_nb.figures import style as looks
from ocensa_nb.paths import ROOT
from ocensa_nb.runs.run import Run


def shown(figure):
    """Return the pixels of a figure as a notebook shows it."""
    png = io.BytesIO()
    figure.canvas.print_figure(png, format="png", facecolor=figure.get_facecolor(), dpi=figure.dpi)
    return np.asarray(Image.open(png).convert("RGB"))


def confusion(names):
    return training.confusion(pd.DataFrame(np.eye(len(names)), names, names), "Confusión")


@pytest.mark.parametrize("style", ["dark_background", "ggplot", "fivethirtyeight"])
def test_figure_under_any_user_style_has_the_same_pixels(run, tmp_path, style):
    training.save(training.learning_curves(run), tmp_path / "plain.png")
    plain = shown(training.learning_curves(run))
    with plt.style.context(style), plt.rc_context({"savefig.transparent": True}):
        training.save(training.learning_curves(run), tmp_path / "styled.png")
        np.testing.assert_array_equal(shown(training.learning_curves(run)), plain)
    assert (tmp_path / "styled.png").read_bytes() == (tmp_path / "plain.png").read_bytes()
    assert (plain[[0, -1]][:, [0, -1]] == 255).all()


def test_drawing_leaves_rc_params_unchanged(run):
    with plt.style.context("dark_background"):
        before = dict(plt.rcParams)
        training.learning_curves(run)
        assert dict(plt.rcParams) == before


@pytest.mark.parametrize("names", [["a", "b"], ["una clase de nombre largo " * 5, "b"], [f"c{i}" for i in range(45)]])
def test_confusion_with_few_many_or_long_labels_fits_its_canvas_and_a_notebook(names):
    figure = confusion(names)
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert box.x0 >= -0.01
    assert box.y0 >= -0.01
    assert box.x1 <= width + 0.01
    assert box.y1 <= height + 0.01
    assert width * figure.dpi <= 900


def test_draw_scores_with_more_heads_than_colours_uses_distinct_lines():
    heads = [f"h{i}" for i in range(2 * len(looks.COLOURS) + 1)]
    epochs = [{"epoch": epoch, **{f"{head}_f1": 0.5 for head in heads}} for epoch in (1, 2)]
    axes = Figure().subplots()
    lines = animation.draw_scores(axes, heads, epochs)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == heads
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == len(heads)


def test_import_of_style_does_not_import_matplotlib():
    check = "import sys; from ocensa_nb.figures import style; assert style.COLOURS and 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", check], cwd=ROOT, check=True)


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
    path = animation.training_gif(copy)
    drawn = frames(path)
    assert 2 <= len(drawn) <= animation.GIF_FRAMES
    assert path.stat().st_size < 1_500_000
    assert 700 <= drawn[0][0].shape[1] <= 900
    assert drawn[-1][1] == animation.HELD_MS == 3000
    assert not np.array_equal(drawn[0][0], drawn[-1][0])


def test_training_gif_of_short_training_has_two_frames(copy):
    copy.metadata["seconds"]["training"] = 0.0
    assert len(frames(animation.training_gif(copy))) == 2


def test_training_gif_last_frame_shows_the_best_epoch_and_its_scores(copy):
    with looks.style():
        drawn = animation.TrainingAnimation(copy, copy.history())
        drawn.frame(len(copy.history()))
    best = copy.metrics["best_epoch"]
    kept = next(line for line in copy.history() if "step" not in line and line["epoch"] == best)
    assert f"Se guardó la época {best}" in drawn.caption.get_text()
    legend = [text.get_text() for text in drawn.scores[0].axes.get_legend().get_texts()]
    assert legend == [f"{head} {kept[f'{head}_f1']:.2f}" for head in copy.classes]
    hits = np.ma.filled(drawn.images[0].get_array(), np.nan)
    truth = np.zeros(len(copy.classes[copy.config.monitored_head]))
    for true, predicted, rows in kept["confusion"]:
        truth[true] += rows * (true == predicted)
    np.testing.assert_array_equal(np.nan_to_num(hits.diagonal()) > 0, truth > 0)


def test_training_gif_confusion_is_blank_before_epoch_1_and_updated_every_epoch(copy):
    rewrite(copy, lambda line: line if "step" in line else {**line, "confusion": [[0, line["epoch"], 3], [0, 0, 1]]})
    history = [*copy.history(), {"step": 10_000, "loss": 1.0}]  # the end shows the epoch that was kept
    ends = [place + 1 for place, line in enumerate(history) if "step" not in line]
    with looks.style():
        drawn = animation.TrainingAnimation(copy, history)
        drawn.frame(ends[0] - 1)
        assert drawn.images[0].get_array().mask.all()
        shares = []
        for known in (ends[0], ends[0] + 1, ends[1]):
            drawn.frame(known)
            shares.append(np.ma.filled(drawn.images[0].get_array(), -1))
    np.testing.assert_array_equal(shares[0], shares[1])
    assert not np.array_equal(shares[1], shares[2])
    assert (shares[2][0, 2], shares[2][0, 0], shares[2][0].sum()) == (0.75, 0.25, 1)
    assert (shares[2][1:] == -1).all()  # the classes without rows


def test_training_gif_of_history_without_confusion_is_drawn(copy):
    rewrite(copy, lambda line: {name: value for name, value in line.items() if name != "confusion"})
    drawn = frames(animation.training_gif(copy))
    assert len(drawn) > 2
    assert not np.array_equal(drawn[0][0], drawn[-1][0])


def test_training_gif_of_one_step_is_none(copy):
    rewrite(copy, lambda line: line if line.get("step", 0) == 1 else None)
    assert animation.training_gif(copy) is None
