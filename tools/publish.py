"""Write the address of the project and the version that the notebooks install into all files that contain them.

    python -m tools.publish --repository https://github.com/CUENTA/PROYECTO --version v0.1.0

The address is defined in `[project.urls]` of pyproject.toml. The set-up cells have a copy, because on Colab they run
before any other file exists, and the badges link to it. Without an address there are no badges, and the set-up cells
install nothing until the user enters the address of a copy.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import tyro

from ocensa_nb.errors import UserError
from ocensa_nb.files.atomic import write_text

ROOT = Path(__file__).resolve().parents[1]
BRANCH = "main"  # the badges of a commit link here: the notebooks of the commit do not have the address yet
INSTALLED = ("ocensa_nb", "data", "requirements.txt")  # what a set-up cell installs
TAG = "refs/tags/"
BY_HAND = "Colab: *Archivo → Subir cuaderno* · Kaggle: *File → Import Notebook*"

_ADDRESS = re.compile(r"https://[\w.-]+(:\d+)?(/[\w~-][\w.~-]*)+", re.ASCII)
_GITHUB = re.compile(r"https://github\.com/[^/]+/[^/]+")
_TAG_NAME = re.compile(r"\w[\w.+-]*", re.ASCII)


def main(repository: str, version: str = "") -> None:
    """Publish an address; "" removes it. Without a version, the last commit of the package is pinned."""
    try:
        address, ref, changed = publish(repository, version)
    except UserError as error:
        sys.exit(str(error))
    print(f"Escrito: {', '.join(changed)}." if changed else "Ya estaba escrito: no cambia nada.")
    print(next_step(address, ref))


def publish(repository: str, version: str = "", root: Path = ROOT) -> tuple[str, str, list[str]]:
    """Write an address and a version into the notebooks, README.md and pyproject.toml.

    Returns
    -------
    address, ref : str
        What was written; both empty if `repository` is.
    changed : list of str
        The files that changed, relative to `root`.

    Raises
    ------
    UserError
        If the address or the version is invalid, the package has uncommitted changes, or the tag exists already.
    """
    address = check_address(repository)
    ref = find_ref(version, root) if address else ""
    texts = rewrite(root, address, ref)
    changed = {path: text for path, text in texts.items() if path.read_text(encoding="utf-8") != text}
    if changed and ref.startswith(TAG) and _git(root, "rev-parse", "-q", "--verify", ref):
        raise UserError(
            f"El tag «{ref.removeprefix(TAG)}» ya existe, y sus cuadernos no llevan esta dirección. Elija otro tag, "
            "que se crea después de publish, o deje version vacío."
        )
    for path, text in changed.items():
        write_text(path, text)
    return address, ref, [path.relative_to(root).as_posix() for path in changed]


def next_step(address: str, ref: str) -> str:
    """Return the remaining steps after `publish`, in Spanish."""
    if not address:
        return "El proyecto no tiene dirección: la primera celda de los cuadernos pide la de la copia de cada usuario."
    if ref.startswith(TAG):
        tag = ref.removeprefix(TAG)
        return f"Los cuadernos instalan el tag {tag} de {address}. Haga commit, créelo (git tag {tag}) y suba ambos."
    return f"Los cuadernos instalan el commit {ref} de {address}. Haga commit, y suba los dos a {BRANCH}."


def check_address(repository: str) -> str:
    """Return an address without its final slash or `.git`; raises `UserError` if it is not a plain https address."""
    address = repository.strip().removesuffix("/").removesuffix(".git")
    if not address:
        return ""
    if not _ADDRESS.fullmatch(address):
        raise UserError(
            f"repository = «{repository}»: se espera una dirección como https://github.com/CUENTA/PROYECTO, con https "
            "y sin usuario ni contraseña."
        )
    if address.startswith("https://github.com/") and not _GITHUB.fullmatch(address):
        raise UserError(
            f"repository = «{repository}»: en GitHub se espera https://github.com/CUENTA/PROYECTO, sin más."
        )
    return address


def find_ref(version: str, root: Path) -> str:
    """Return the git ref of a version."""
    if not version:
        if _git(root, "status", "--porcelain", "--", *INSTALLED):
            raise UserError(
                f"Hay cambios sin commit en {', '.join(INSTALLED)}: los cuadernos instalarían otra versión. Haga "
                "commit, o indique un tag en version."
            )
        if commit := _git(root, "log", "-1", "--format=%H", "--", *INSTALLED):
            return commit
        raise UserError(f"«{root}» no es un repositorio de git con commits. Indique un tag en version.")
    known = _git(root, "rev-parse", "-q", "--verify", f"{version}^{{commit}}")
    if re.fullmatch("[0-9a-f]{40}", version):
        if known:
            return version
        raise UserError(f"version = {version}: ese commit no está en esta copia.")
    if not (_TAG_NAME.fullmatch(version) and _git(root, "check-ref-format", "--normalize", TAG + version)):
        raise UserError(f"version = «{version}»: se espera un tag (p. ej. v0.1.0) o los 40 dígitos de un commit.")
    if known and not _git(root, "rev-parse", "-q", "--verify", TAG + version):
        raise UserError(
            f"version = «{version}»: es una rama o un commit abreviado, y no fija lo que se instala. Indique un tag o "
            f"los 40 dígitos del commit ({known})."
        )
    return TAG + version


def rewrite(root: Path, address: str, ref: str) -> dict[Path, str]:
    """Return the new text of the notebooks, README.md and pyproject.toml for an address and a ref."""
    texts = {path: _rewrite_notebook(path, address, ref) for path in sorted((root / "notebooks").glob("*.ipynb"))}
    readme, project = root / "README.md", root / "pyproject.toml"
    texts[readme] = re.sub(
        r"^(\| \d+ \| \[\w+\]\(notebooks/(\w+\.ipynb)\) \|[^|\n]*\|).*$",
        lambda row: f"{row[1]} {' '.join(badges(address, ref, row[2])) or BY_HAND} |",
        readme.read_text(encoding="utf-8"),
        flags=re.MULTILINE,
    )
    urls = f'[project.urls]\nRepository = "{address}"\n\n' if address else ""
    texts[project] = re.sub(
        r'(\[project\.urls\]\nRepository = ".*"\n\n)?\[tool\.setuptools\]\n',
        f"{urls}[tool.setuptools]\n",
        project.read_text(encoding="utf-8"),
    )
    return texts


def badges(address: str, ref: str, notebook: str) -> list[str]:
    """Return the badges that open a notebook in Colab and Kaggle; none if the address is not on GitHub."""
    if not _GITHUB.fullmatch(address):
        return []
    # The notebooks of a tag match its package; those of a branch may be newer than the version they install.
    page = f"{address}/blob/{ref.removeprefix(TAG) if ref.startswith(TAG) else BRANCH}/notebooks/{notebook}"
    colab = page.replace("https://github.com", "https://colab.research.google.com/github")
    return [
        f"[![Abrir en Colab](https://colab.research.google.com/assets/colab-badge.svg)]({colab})",
        "[![Abrir en Kaggle](https://kaggle.com/static/images/open-in-kaggle.svg)]"
        f"(https://kaggle.com/kernels/welcome?src={page})",
    ]


def fill_set_up(source: str, address: str, ref: str) -> str:
    """Return the source of a set-up cell with an address and a ref."""
    written = f"{address}@{ref}" if address else ""
    return re.sub('^REPOSITORY = ".*?"', f'REPOSITORY = "{written}"', source, flags=re.MULTILINE)


def _rewrite_notebook(path: Path, address: str, ref: str) -> str:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    title = notebook["cells"][0]
    set_up = next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")
    links = "".join(f"{badge}\n" for badge in badges(address, ref, path.name))
    heading = re.compile(r"\A(# .*\n\n)((?:\[!\[Abrir en .*\n)+\n)?")
    source = heading.sub(lambda match: match[1] + (f"{links}\n" if links else ""), "".join(title["source"]))
    title["source"] = source.splitlines(keepends=True)
    set_up["source"] = fill_set_up("".join(set_up["source"]), address, ref).splitlines(keepends=True)
    return json.dumps(notebook, ensure_ascii=False, indent=1) + "\n"


def _git(root: Path, *arguments: str) -> str:
    """Return the output of git, or "" if it fails; raises `UserError` if git is not installed."""
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
    except OSError as error:
        raise UserError("publish necesita git, y no está instalado.") from error
    return done.stdout.strip() if done.returncode == 0 else ""


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
