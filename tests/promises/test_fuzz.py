"""Fuzzing of data files, paths and run folders: a result or a `UserError`. `OCENSA_LONG=1`: ten times the examples."""

import contextlib
import io
import json
import os
import shutil
import zipfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ocensa_nb.data import notices, synthetic
from ocensa_nb.data.columns import ALIASES
from ocensa_nb.errors import UserError
from ocensa_nb.files.notice_file import NoticeFile
from ocensa_nb.models import save
from ocensa_nb.runs import manifest
from ocensa_nb.runs import run as run_folder
from ocensa_nb.runs.manifest import MANIFEST
from ocensa_nb.runs.run import Run

many = settings(
    max_examples=2000 if os.environ.get("OCENSA_LONG") else 200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)


def book(frame):
    buffer = io.BytesIO()
    frame.to_excel(buffer, index=False)
    return buffer.getvalue()


SAMPLE = synthetic.generate(12, seed=1)
WHOLE = {".csv": SAMPLE.to_csv(index=False).encode(), ".xlsx": book(SAMPLE)}

names = st.sampled_from([alias for aliases in ALIASES.values() for alias in aliases]) | st.text(max_size=8)
cells = st.sampled_from(["nan", "", "1-Critica", "Wear", '"', "=1+1", "a;b", "\0", "\x1a"]) | st.text(max_size=12)
rows = st.lists(st.lists(cells, max_size=6), max_size=8)
encodings = st.sampled_from(["utf-8", "utf-8-sig", "cp1252", "utf-16"])


@st.composite
def damaged(draw, whole):
    """Draw the content of a file with a few parts removed, doubled or overwritten."""
    content = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, max(0, len(content) - 1)))
        end = draw(st.integers(start, min(len(content), start + 200)))
        content[start:end] = draw(st.binary(max_size=40) | st.just(bytes(content[start:end] * 2)))
    return bytes(content)


@st.composite
def damaged_books(draw):
    """Draw a workbook that is a valid ZIP with one damaged member."""
    with zipfile.ZipFile(io.BytesIO(WHOLE[".xlsx"])) as book:
        members = {name: book.read(name) for name in book.namelist()}
    name = draw(st.sampled_from(list(members)))
    members[name] = draw(damaged(members[name]))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as book:
        for name, content in members.items():
            book.writestr(name, content)
    return buffer.getvalue()


@st.composite
def tables(draw):
    """Draw a random CSV, perhaps with other rows above its titles."""
    separator, quote = draw(st.sampled_from(",;\t|")), draw(st.sampled_from(['"', ""]))
    above = draw(st.lists(st.lists(cells, max_size=2), max_size=3))
    lines = [*above, draw(st.lists(names, max_size=6)), *draw(rows)]
    text = draw(st.sampled_from(["\n", "\r\n"])).join(
        separator.join(f"{quote}{cell}{quote}" for cell in line) for line in lines
    )
    return text.encode(draw(encodings), "replace")


files = st.one_of(
    st.tuples(st.just(".csv"), st.binary(max_size=300) | tables() | damaged(WHOLE[".csv"])),
    st.tuples(st.just(".xlsx"), st.binary(max_size=100) | damaged(WHOLE[".xlsx"]) | damaged_books()),
    st.sampled_from(list(WHOLE.items())),
)


@many
@given(files)
def test_read_any_data_file_returns_a_table_or_raises_user_error(tmp_path, file):
    suffix, content = file
    path = tmp_path / f"avisos{suffix}"
    path.write_bytes(content)
    with contextlib.suppress(UserError):
        assert isinstance(notices.read(path), NoticeFile)


@many
@given(st.text(max_size=300))
def test_read_any_missing_path_raises_user_error(name):
    for read in (notices.read, Run.load):
        with pytest.raises(UserError):
            read(f"no/{name}")


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def replaced(draw, tree):
    """Draw a JSON value with one part, at any depth, replaced or removed."""
    if not isinstance(tree, dict | list) or not tree or draw(st.integers(0, 3)) == 0:
        return draw(values)
    keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
    key, copy = draw(st.sampled_from(keys)), tree.copy()
    if draw(st.integers(0, 4)) == 0:
        del copy[key]
    else:
        copy[key] = draw(replaced(tree[key]))
    return copy


@pytest.fixture(scope="module")
def copy(run, tmp_path_factory):
    return shutil.copytree(run.path, tmp_path_factory.mktemp("fuzz") / "run")


@many
@given(data=st.data())
def test_load_any_run_folder_succeeds_or_raises_user_error(run, copy, data):
    name = data.draw(
        st.sampled_from([run_folder.CONFIG, run_folder.LABELS, run_folder.METRICS, run_folder.HISTORY, manifest.HEADS])
    )
    whole = (run.path / name).read_bytes()
    if name.endswith(".json") and data.draw(st.booleans()):
        content = json.dumps(data.draw(replaced(json.loads(whole)))).encode()
    else:
        content = data.draw(damaged(whole))
    regenerated = data.draw(st.booleans())  # with a regenerated manifest
    try:
        (copy / name).write_bytes(content)
        if regenerated:
            manifest.write(copy)
        opened = Run.load(copy)
        assert opened.metrics["test"] is not None
        assert isinstance(opened.history(), list)
        if regenerated:
            save.load_model(opened)
    except UserError:
        pass
    finally:
        (copy / name).write_bytes(whole)
        shutil.copy(run.path / MANIFEST, copy / MANIFEST)
