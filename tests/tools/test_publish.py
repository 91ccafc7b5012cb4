"""Publish: address and pinned version of the project in notebooks, badges and pyproject.toml."""

import re
import shutil
import subprocess
import sys

import nbformat
import pytest

from ocensa_nb.errors import UserError
from tools import publish
from tools.publish import ROOT

ADDRESS = "https://github.com/cuenta/copia"
NOTEBOOKS = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))
PLACEHOLDER = re.compile(r"(?:tu|su|mi|your)-?(?:usuario|cuenta|user(?:name)?)/", re.IGNORECASE)


def git(folder, *arguments):
    identity = ["-c", "user.name=x", "-c", "user.email=x@x"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path):
    """Return an unpublished git repository of two commits with the files that publish reads and writes."""
    folder = tmp_path / "checkout"
    shutil.copytree(ROOT / "notebooks", folder / "notebooks", ignore=shutil.ignore_patterns("pictures"))
    for name in ("README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "ocensa_nb").mkdir()
    (folder / "ocensa_nb/__init__.py").touch()
    publish.publish("", root=folder)
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "package")
    (folder / "notes.md").touch()
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "not the package")
    return folder


def texts(folder):
    files = [*folder.glob("notebooks/*.ipynb"), folder / "README.md", folder / "pyproject.toml"]
    return {path.name: path.read_text(encoding="utf-8") for path in files}


def test_committed_files_match_the_output_of_publish():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    address = "".join(re.findall('^Repository = "(.*)"', project, flags=re.MULTILINE))
    cells = nbformat.read(ROOT / "notebooks" / NOTEBOOKS[0], as_version=4).cells
    set_up = next(cell.source for cell in cells if cell.cell_type == "code")
    ref = re.search('^REPOSITORY = ".*?(?:@(.*))?"', set_up, re.MULTILINE)[1] or ""
    assert bool(address) == bool(ref)  # a published address always has a pinned version
    for path, text in publish.rewrite(ROOT, address, ref).items():
        assert path.read_text(encoding="utf-8") == text, path.name


def test_no_committed_file_contains_a_placeholder_address():
    for name in git(ROOT, "ls-files").splitlines():
        if name.endswith((".ipynb", ".md", ".py", ".toml", ".txt")) and (ROOT / name).exists():
            assert not PLACEHOLDER.search((ROOT / name).read_text(encoding="utf-8")), name


def test_publish_with_a_tag_pins_it_in_every_notebook_and_badge(checkout):
    address, ref, changed = publish.publish(f"{ADDRESS}.git", "v0.1.0", checkout)
    assert (address, ref) == (ADDRESS, "refs/tags/v0.1.0")
    written = texts(checkout)
    assert sorted(changed) == sorted([*(f"notebooks/{name}" for name in NOTEBOOKS), "README.md", "pyproject.toml"])
    assert f'[project.urls]\nRepository = "{ADDRESS}"\n' in written["pyproject.toml"]
    for name in NOTEBOOKS:
        page = f"cuenta/copia/blob/v0.1.0/notebooks/{name}"
        title, *cells = nbformat.reads(written[name], as_version=4).cells
        set_up = next(cell for cell in cells if cell.cell_type == "code")
        assert f'REPOSITORY = "{ADDRESS}@refs/tags/v0.1.0"  # @param' in set_up.source
        for text in (title.source, written["README.md"]):
            assert f"(https://colab.research.google.com/github/{page})" in text
            assert f"(https://kaggle.com/kernels/welcome?src=https://github.com/{page})" in text


def test_publish_without_a_version_pins_the_last_commit_of_the_package(checkout):
    _, ref, _ = publish.publish(ADDRESS, root=checkout)
    assert ref == git(checkout, "rev-parse", "HEAD~1")
    assert f"{ADDRESS}/blob/main/notebooks/01" in texts(checkout)["README.md"]
    git(checkout, "commit", "-qam", "publish")
    assert publish.publish(ADDRESS, root=checkout) == (ADDRESS, ref, [])


def test_publish_again_is_idempotent_and_empty_address_restores_the_files(checkout):
    unpublished = texts(checkout)
    publish.publish(ADDRESS, "v1", checkout)
    assert publish.publish(f"{ADDRESS}/", "v1", checkout)[2] == []
    publish.publish("https://github.com/otra/copia", "v1", checkout)
    assert not any("cuenta/copia" in text for text in texts(checkout).values())
    publish.publish("", root=checkout)
    assert texts(checkout) == unpublished


def test_publish_with_address_outside_github_writes_no_badges(checkout):
    publish.publish("https://gitlab.example:8443/grupo/equipo/copia", "v1", checkout)
    written = texts(checkout)
    assert 'Repository = "https://gitlab.example:8443/grupo/equipo/copia"' in written["pyproject.toml"]
    assert not any("[Abrir en" in text for text in written.values())


@pytest.mark.parametrize(
    "address",
    [
        *("http://github.com/a/b", "git@github.com:a/b", "https://user:secret@github.com/a/b", "--upload-pack=x"),
        *("https://github.com/a", "https://github.com/a/b/tree/main", "https://x/../y", "https://x", 'https://x/"\n"'),
        *("https://github.com/a/b?c=d", "https://github.com/a/b#c", "file:///x", "https://x/a b", "https://ñ/a/b"),
    ],
)
def test_publish_with_invalid_address_raises_user_error(checkout, address):
    before = texts(checkout)
    with pytest.raises(UserError, match=r"https://github\.com/CUENTA/PROYECTO"):
        publish.publish(address, "v1", checkout)
    assert texts(checkout) == before


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("main", "es una rama o un commit abreviado"),
        ("0" * 40, "ese commit no está en esta copia"),
        ("-x", "se espera un tag"),
        ('v1"', "se espera un tag"),
        *((name, "se espera un tag") for name in ("v1.lock", "v1..0", "v1.", "v1@{0}", "v1~1", "v1 0")),  # not for git
        ("v0", "ya existe, y sus cuadernos no llevan esta dirección"),
    ],
)
def test_publish_with_unpinned_or_invalid_version_raises_user_error(checkout, version, message):
    git(checkout, "tag", "v0")
    before = texts(checkout)
    with pytest.raises(UserError, match=message):
        publish.publish(ADDRESS, version, checkout)
    with pytest.raises(UserError, match="es una rama o un commit abreviado"):
        publish.publish(ADDRESS, git(checkout, "rev-parse", "--short", "HEAD"), checkout)
    assert texts(checkout) == before


def test_publish_with_uncommitted_changes_of_the_package_raises_user_error(checkout):
    (checkout / "ocensa_nb/new.py").touch()
    with pytest.raises(UserError, match="Hay cambios sin commit en ocensa_nb"):
        publish.publish(ADDRESS, root=checkout)


def test_publish_command_prints_changed_files_and_the_next_step(checkout):
    for folder in ("ocensa_nb", "tools"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, checkout / folder, ignore=ignored, dirs_exist_ok=True)
    command = [sys.executable, "-m", "tools.publish", "--repository", ADDRESS, "--version"]
    done = subprocess.run([*command, "v0.1.0"], cwd=checkout, capture_output=True, text=True, check=True)
    assert "Escrito: notebooks/01_setup_gpu_check.ipynb, " in done.stdout
    assert "créelo (git tag v0.1.0)" in done.stdout
    failed = subprocess.run([*command, "main"], cwd=checkout, capture_output=True, text=True, check=False)
    assert (failed.returncode, "es una rama" in failed.stderr) == (1, True)
