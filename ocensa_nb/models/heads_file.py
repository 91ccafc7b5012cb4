"""`RUN/heads.safetensors`: the shared layer and the heads of a classifier, everything that is not its encoder."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ocensa_nb.errors import UserError
from ocensa_nb.files import tensors
from ocensa_nb.models.weights_checks import some

if TYPE_CHECKING:
    from ocensa_nb.models.classifier import MultiHeadClassifier


def write(path: Path, model: "MultiHeadClassifier") -> None:
    """Write the weights of a classifier outside its encoder; raises `UserError` if the disk refuses."""
    tensors.write(path, _own(model))


def load_into(model: "MultiHeadClassifier", path: Path) -> None:
    """Load the weights of a classifier outside its encoder."""
    own, (found, _) = _own(model), tensors.read(path)
    both = own.keys() & found.keys()
    alike = {name for name in both if (own[name].shape, own[name].dtype) == (found[name].shape, found[name].dtype)}
    faults = {
        "faltan": own.keys() - found.keys(),
        "sobran": found.keys() - own.keys(),
        "tienen otra forma u otro tipo": both - alike,
        "tienen valores que no son números": {name for name in alike if not torch.isfinite(found[name]).all()},
    }
    for fault, names in faults.items():
        if names:
            raise UserError(
                f"Los pesos de «{path}» no son los de esta corrida. Tensores que {fault}: {some(sorted(names))}. "
                "Recupere una copia de la carpeta o vuelva a entrenar."
            )
    model.load_state_dict(found, strict=False)  # the encoder has its weights


def _own(model: "MultiHeadClassifier") -> dict[str, torch.Tensor]:
    return {name: values for name, values in model.state_dict().items() if not name.startswith("encoder.")}
