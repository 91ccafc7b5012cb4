"""Share a finished run: as a ZIP file, or in a private repository on the hub of Hugging Face."""

import zipfile
from pathlib import Path

from ocensa_nb.errors import UserError
from ocensa_nb.files.atomic import create_new, is_temporary
from ocensa_nb.files.lock import LOCK
from ocensa_nb.paths import free_path, plain_path
from ocensa_nb.runs.run import Run


def zip_run(run: Run, out: str | Path) -> Path:
    """Write the folder of a run to a new ZIP file and return its path, with the suffix `.zip`.

    Nothing is compressed: weights hardly get smaller. Raises `UserError` if the file exists or cannot be written.
    """
    path = free_path(plain_path(out).with_suffix(".zip"))
    with create_new(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for name in _files(run):
            archive.write(run.path / name, f"{run.path.resolve().name}/{name}")
    return path


def push_to_hub(run: Run, repository: str) -> str:
    """Upload a run to a new private repository, named like `account/name`, and return its address.

    Raises `UserError` if the repository exists, the user may not create it, or the hub cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

    hub = HfApi()
    try:
        address = hub.create_repo(repository, private=True)
        hub.upload_folder(repo_id=repository, folder_path=run.path, allow_patterns=_files(run))
    except HFValidationError as error:
        raise UserError(f"hub = «{repository}» no es un nombre de repositorio: se escribe cuenta/nombre.") from error
    except (HfHubHTTPError, LocalTokenNotFoundError) as error:
        state = getattr(getattr(error, "response", None), "status_code", 401)
        causes = {
            401: "inicie sesión antes (from huggingface_hub import login; login()) con un token que pueda escribir",
            403: "su cuenta o su token no puede escribir ahí",
            409: "ya existe, y no se sobrescribe: elija otro nombre en hub",
        }
        cause = causes.get(state, f"Hugging Face responde con un error (HTTP {state}); inténtelo más tarde")
        raise UserError(f"No se pudo subir la corrida a «{repository}»: {cause}.") from error
    except Exception as error:  # of the network: each version of the hub's client has its own
        raise UserError(
            f"No se pudo subir la corrida a «{repository}»: no hay conexión con huggingface.co. Inténtelo otra vez con "
            "otro nombre, o borre ese repositorio si quedó a medias."
        ) from error
    return str(address)


def _files(run: Run) -> list[str]:
    files = (path for path in sorted(run.path.rglob("*")) if path.is_file())
    names = [path for path in files if not is_temporary(path.name) and not path.name.startswith(LOCK)]
    return [path.relative_to(run.path).as_posix() for path in names]
