"""Whatever the files of a run folder hold, each verb that opens one ends well or with one message.

`OCENSA_LONG=1` tries 2,000 examples. Files are changed by structure: a JSON value at any depth, the header of a
safetensors file, a special file in the place of one; and the checksums are often made anew, so that the change is read.
"""

import contextlib
import io
import json
import os
import shutil
import signal
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from ocensa_nb.cli import main as cli
from ocensa_nb.data import synthetic
from ocensa_nb.data.corrections import SHEET
from ocensa_nb.errors import UserError
from ocensa_nb.evaluation.blend import FILE as BLEND
from ocensa_nb.evaluation.suggestion import FILE as EVIDENCE
from ocensa_nb.files.verify import LARGEST_JSON, read_regular
from ocensa_nb.models.save import WEIGHTS
from ocensa_nb.runs import manifest
from ocensa_nb.runs import run as run_folder
from ocensa_nb.runs.run import Run
from tests.helpers.words import TRAIN

pytestmark = pytest.mark.slow
many = settings(
    max_examples=int(os.environ.get("OCENSA_EXAMPLES") or (2000 if os.environ.get("OCENSA_LONG") else 10)),
    deadline=None,
    phases=[Phase.explicit, Phase.generate],  # to shrink a file takes longer than to find it
    suppress_health_check=list(HealthCheck),
    derandomize="OCENSA_LONG" not in os.environ,  # the long run looks for new faults, the short one for old ones
)
SECONDS = 60  # an example that takes longer hangs

odd = st.sampled_from([10**400, -1, 0, 2**31, 2**63, 1e308, "\ud800", "", "../x", "None", "a\0b", [], {}, [[]]])
texts = st.text(st.characters(exclude_categories=()), max_size=6)  # lone surrogates too
values = odd | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=4,
)


@st.composite
def changed(draw, tree):
    """Give a JSON value with one of its parts, at any depth, replaced, renamed, doubled or removed."""
    if not isinstance(tree, dict | list) or not tree or draw(st.integers(0, 4)) == 0:
        return draw(values)
    keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
    key, copy = draw(st.sampled_from(keys)), tree.copy()
    how = draw(st.sampled_from(["deeper"] * 6 + ["remove", "rename", "double"]))
    if how == "remove":
        del copy[key]
    elif how == "rename" and isinstance(copy, dict):
        copy[draw(texts)] = copy.pop(key)
    elif how == "double" and isinstance(copy, list):
        copy.append(copy[key])
    else:
        copy[key] = draw(changed(tree[key]))
    return copy


def dumped(tree):
    return json.dumps(tree).encode()


@st.composite
def changed_file(draw, path):
    """Give other content for a file: JSON, JSON lines or safetensors of another structure, or any bytes."""
    content = path.read_bytes()
    if path.suffix == ".md" or draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=60)) or content[: len(content) // 2]
    if path.suffix == ".json":
        return dumped(draw(changed(json.loads(content))))
    if path.suffix == ".jsonl":
        lines = content.splitlines()
        place = draw(st.integers(0, len(lines) - 1))
        lines[place] = dumped(draw(changed(json.loads(lines[place]))))
        return b"\n".join(lines) + b"\n"
    length = int.from_bytes(content[:8], "little")
    header, tail = json.loads(content[8 : 8 + length]), content[8 + length :]
    how = draw(st.sampled_from(["numbers", "numbers", "state", "header"]))
    if how == "numbers":
        tail = draw(changed_numbers(header, tail))
    elif how == "state" and "__metadata__" in header:
        header["__metadata__"]["state"] = json.dumps(draw(changed(json.loads(header["__metadata__"]["state"]))))
    else:
        header = draw(changed(header))
    return len(dumped(header)).to_bytes(8, "little") + dumped(header) + tail


@st.composite
def changed_numbers(draw, header, content):
    """Give the bytes of a safetensors file with some or all numbers of one of its tensors replaced."""
    tensor = header[draw(st.sampled_from(sorted(header.keys() - {"__metadata__"})))]
    start, end = tensor["data_offsets"]
    dtype = {"F32": np.float32, "I32": np.int32, "I64": np.int64}[tensor["dtype"]]
    numbers = np.frombuffer(content[start:end], dtype).copy()
    extreme = np.finfo(dtype).max if dtype == np.float32 else np.iinfo(dtype).max
    odd = [extreme, -extreme, 0, -1, 2, *([np.nan, np.inf, 1e-40, 1e30] if dtype == np.float32 else [3 * 2**20])]
    few = slice(place := draw(st.integers(0, max(len(numbers) - 1, 0))), place + 3)
    numbers[draw(st.sampled_from([few, slice(None)]))] = draw(st.sampled_from(odd))
    return content[:start] + numbers.tobytes() + content[end:]


def put_special(path, kind):
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "endless":
        path.symlink_to("/dev/zero")
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "folder":
        path.mkdir()


SPECIAL = ["missing", "folder", "loop", *([] if os.name == "nt" else ["pipe", "endless"])]


@contextlib.contextmanager
def damaged(data, whole, folder, names):
    """Damage one file of a folder that is a copy of `whole`, and put all as it was afterwards."""
    name = data.draw(st.sampled_from(names))
    if data.draw(st.integers(0, 9)) == 0:
        put_special(folder / name, data.draw(st.sampled_from(SPECIAL)))
    else:
        (folder / name).write_bytes(data.draw(changed_file(whole / name)))
    try:
        yield name
    finally:
        shutil.rmtree(folder)
        shutil.copytree(whole, folder)


def seal_again(folder):
    """Make the checksums anew, as someone who knows of them would; leave a folder that has none as it is."""
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError, AttributeError, UserError):
        metadata = json.loads(read_regular(folder / run_folder.CONFIG, LARGEST_JSON))
        metadata.pop(manifest.CHECKSUM, None)
        (folder / run_folder.CONFIG).write_text(json.dumps(manifest.sealed(metadata)), encoding="utf-8")
        if (folder / manifest.MANIFEST).exists():
            manifest.write(folder)


def check(*arguments):
    """Run a verb in this process: exit code 0, or 1 and one message; never an exception, never a hang."""
    said = io.StringIO()
    handler = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("hangs")) if os.name != "nt" else None
    if handler is not None:
        signal.alarm(SECONDS)
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = cli.main([str(argument) for argument in arguments])
    finally:
        if handler is not None:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, handler)
    assert code in (0, 1)
    assert "Traceback" not in said.getvalue()
    return code


ENCODER_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors")
FINISHED = [
    *(
        run_folder.CONFIG,
        run_folder.LABELS,
        run_folder.METRICS,
        run_folder.HISTORY,
        manifest.HEADS,
        manifest.MANIFEST,
    ),
    *(f"{manifest.ENCODER}/{name}" for name in ENCODER_FILES),
]
OF_LINEAR = [BLEND, EVIDENCE, f"{manifest.LINEAR}/{WEIGHTS}", manifest.SPLITS]  # with the blend
counts = Counter()


@pytest.fixture(scope="module")
def copy(run, tmp_path_factory):
    return Path(shutil.copytree(run.path, tmp_path_factory.mktemp("fuzz") / "run"))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Return a file of 60 labelled notices."""
    path = tmp_path_factory.mktemp("small") / "a.csv"
    synthetic.write_csv(synthetic.generate(60, seed=4), path)
    return path


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    """Draw nothing: what is drawn does not come from the files of a run, and takes longer than the rest."""
    monkeypatch.setattr("ocensa_nb.figures.style.save", lambda *_: None)
    monkeypatch.setattr("ocensa_nb.figures.quality.confusion", lambda *_: None)


@pytest.mark.parametrize(
    ("verb", "names"),
    [
        *((verb, FINISHED) for verb in ("evaluate", "predict")),
        *((verb, OF_LINEAR) for verb in ("evaluate", "predict", "review")),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_verb_on_any_run_folder_succeeds_or_prints_one_error(verb, names, run, copy, small, tmp_path):
    out = tmp_path / ("out.xlsx" if verb == "review" else "out.csv")

    @many
    @given(data=st.data())
    def fuzz(data):
        with damaged(data, run.path, copy, names) as name:
            if data.draw(st.integers(0, 3)):
                seal_again(copy)
            counts[verb, name, code := check(verb, "--run", copy, "--data", small, "--out", out)] += 1
        if not code:
            assert_finite_confidences(verb, out)
        shutil.rmtree(out) if out.is_dir() else out.unlink(missing_ok=True)

    fuzz()
    print(counts)


def assert_finite_confidences(verb, out):
    if verb == "review":
        table = pd.read_excel(out, sheet_name=SHEET)
    else:
        table = pd.read_csv(out / "predictions.csv" if verb == "evaluate" else out)
    confidences = table.filter(regex="^conf\\d?_")
    assert confidences.size
    assert ((confidences >= 0) & (confidences <= 1)).all(axis=None)


@many
@given(data=st.data())
def test_history_of_any_structure_is_a_list_of_dicts_or_raises_user_error(run, copy, data):
    with damaged(data, run.path, copy, [run_folder.HISTORY]), contextlib.suppress(UserError):
        seal_again(copy)
        assert all(isinstance(line, dict) for line in Run.load(copy).history())


@pytest.fixture(scope="module")
def interrupted(small, tmp_path_factory):
    """Return the folder of a training that was interrupted after its last checkpoint."""
    out = tmp_path_factory.mktemp("interrupted") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ocensa_nb.runs.run.Run.finish", lambda *_: (_ for _ in ()).throw(UserError("se detuvo")))
        assert check(*TRAIN_ONCE, "--data", small, "--out", out) == 1
    return Path(shutil.copytree(out, out.with_name("whole")))


TRAIN_ONCE = [*TRAIN, *["--epochs", "1", "--patience", "1", "--min-class-count", "1", "--precision", "fp32"]]


def test_train_resumed_from_any_folder_succeeds_or_prints_one_error(interrupted, small, monkeypatch):
    monkeypatch.setattr("ocensa_nb.figures.training.training_gif", lambda *_: None)
    folder = interrupted.with_name("run")
    names = [str(path.relative_to(interrupted)) for path in sorted(interrupted.rglob("*.*")) if path.is_file()]
    names = [name for name in names if not name.startswith(".")]
    shutil.rmtree(folder)
    shutil.copytree(interrupted, folder)

    @many
    @given(data=st.data())
    def fuzz(data):
        with damaged(data, interrupted, folder, names):
            if data.draw(st.integers(0, 3)):
                seal_again(folder)
            counts["train", check(*TRAIN_ONCE, "--data", small, "--out", folder)] += 1

    fuzz()
    print(names, counts)
