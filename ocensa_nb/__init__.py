"""OCENSA notebook suite: failure mode, failure cause and priority from Spanish maintenance notices.

    from ocensa_nb import TrainConfig, evaluate, fit, predict
    run = fit(TrainConfig(data="avisos.csv"))

Each public name is imported when it is first used (PEP 562), so importing the package is quick.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ocensa_nb.config import TrainConfig
    from ocensa_nb.evaluation.evaluate import evaluate
    from ocensa_nb.evaluation.predict import predict
    from ocensa_nb.evaluation.predictor import Predictor
    from ocensa_nb.experiments.run import run_grid
    from ocensa_nb.runs.run import Run
    from ocensa_nb.training.train import fit, load_notices

__version__ = "0.1.0"
__all__ = ["Predictor", "Run", "TrainConfig", "evaluate", "fit", "load_notices", "predict", "run_grid"]

_MODULES = {
    "Predictor": "ocensa_nb.evaluation.predictor",
    "Run": "ocensa_nb.runs.run",
    "TrainConfig": "ocensa_nb.config",
    "evaluate": "ocensa_nb.evaluation.evaluate",
    "fit": "ocensa_nb.training.train",
    "load_notices": "ocensa_nb.training.train",
    "predict": "ocensa_nb.evaluation.predict",
    "run_grid": "ocensa_nb.experiments.run",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
