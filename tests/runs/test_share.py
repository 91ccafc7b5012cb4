"""A run as a ZIP file and in a repository of the hub."""

import zipfile

import huggingface_hub
import pytest
from httpx import Request, Response
from huggingface_hub.errors import HfHubHTTPError

from ocensa_nb.data.notices import load_notices
from ocensa_nb.errors import UserError
from ocensa_nb.runs import share
from ocensa_nb.runs.run import Run


def test_zip_of_a_run_is_opened_elsewhere_and_replaces_nothing(run, tmp_path):
    path = share.zip_run(run, tmp_path / "mi corrida")
    assert path == tmp_path / "mi corrida.zip"
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "elsewhere")
    assert Run.load(tmp_path / "elsewhere" / run.path.name).metrics == run.metrics
    with pytest.raises(UserError, match="no se sobrescribe"):
        share.zip_run(run, path)


def test_no_file_of_a_run_has_the_text_of_a_notice(run):
    """The prose of notebook 03 says so."""
    texts = [text.encode() for text in load_notices(run.config).texts]
    for name in share._files(run):
        content = (run.path / name).read_bytes()
        assert not [text for text in texts if text in content], name


class Hub:
    """Records what is uploaded, or raises the error of a status."""

    def __init__(self, status=0):
        self.status, self.files = status, []

    def create_repo(self, name, private):
        assert private
        if self.status:
            request = Request("POST", "https://huggingface.co/api/repos/create")
            raise HfHubHTTPError("in English", response=Response(self.status, request=request))
        return f"https://huggingface.co/{name}"

    def upload_folder(self, repo_id, folder_path, allow_patterns):
        self.files = allow_patterns


def test_push_to_hub_uploads_the_files_of_the_run_to_a_private_repository(run, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
    hub = Hub()
    assert share.push_to_hub(run, "planta/avisos") == "https://huggingface.co/planta/avisos"
    assert {"README.md", "manifest.json", "heads.safetensors"} <= set(hub.files)
    for status, said in ((409, "ya existe"), (401, "inicie sesión"), (403, "no puede escribir"), (500, "HTTP 500")):
        hub = Hub(status)
        with pytest.raises(UserError, match=said):
            share.push_to_hub(run, "planta/avisos")
