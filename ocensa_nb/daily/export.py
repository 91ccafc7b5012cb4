"""Export the encoder of a run as ONNX, with its calibration, for machines that do not have this package."""

import logging
import shutil
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ocensa_nb.config import ENCODER
from ocensa_nb.data.columns import appended, field_title
from ocensa_nb.errors import UserError, num
from ocensa_nb.evaluation.blend import Blend, apply, read_blends
from ocensa_nb.evaluation.calibration import SMALLEST
from ocensa_nb.evaluation.predictor import EXAMPLES
from ocensa_nb.evaluation.rows import training_rows
from ocensa_nb.files.atomic import create_new, write_json, write_text
from ocensa_nb.models.classifier import MultiHeadClassifier
from ocensa_nb.models.layers import in_eval_mode
from ocensa_nb.models.save import load_model
from ocensa_nb.models.tokens import encode
from ocensa_nb.runs.run import Run, free_folder

logger = logging.getLogger(__name__)

MODEL, SCRIPT = "model.onnx", "score.py"
FARTHEST = 1e-4  # between a probability of the file in fp32 and of torch
MARGIN = 1e-5  # of the most probable class before the second, which fp32 keeps apart
OPSET = 18
SAMPLED_TEXTS = 64
ROUNDS = 3
LACKING = "Para exportar faltan paquetes. Instálelos: pip install onnx onnxscript onnxruntime"


class Calibrated(nn.Module):
    """The classifier, and the calibration of the encoder's answers: see `Blend.probabilities`."""

    def __init__(self, model: MultiHeadClassifier, blends: dict[str, Blend]) -> None:
        super().__init__()
        self.model = model
        self.curves = {
            head: (blend.temperatures[ENCODER], blend.curves[ENCODER][0], torch.tensor(blend.curves[ENCODER][1]))
            for head, blend in blends.items()
        }

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the probabilities (rows, classes) of each label."""
        hidden = self.model.shared(self.model.encoder(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0])
        return tuple(self._calibrated(head, layers(hidden)) for head, layers in self.model.heads.items())

    def _calibrated(self, head: str, logits: torch.Tensor) -> torch.Tensor:
        """See `recalibrate`."""
        temperature, slope, intercepts = self.curves[head]
        shares = torch.softmax(logits / temperature, dim=1)
        confidence, top = shares.max(dim=1, keepdim=True)
        is_top = torch.arange(logits.shape[1]) == top
        confidence = confidence.clamp(SMALLEST, 1 - SMALLEST)
        others = shares.masked_fill(is_top, 0)
        others = others / others.sum(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
        second = others.max(dim=1, keepdim=True).values
        wanted = torch.sigmoid(slope * torch.logit(confidence) + intercepts[top])
        wanted = torch.maximum(wanted, (1 + MARGIN) * second / (1 + second))
        return torch.where(is_top, wanted, others * (1 - wanted))


def export(run: Run, out: str | Path, int8: bool = False) -> dict[str, Any]:
    """Write the encoder of a run as ONNX to a new folder, with a script that scores a CSV and needs little else.

    Parameters
    ----------
    int8
        Whether the weights of the linear layers are stored as 8-bit integers, and their inputs rounded so too.

    Returns
    -------
    dict
        The folder, the largest distance of a probability from torch's, the share of equal predictions, and the notices
        per second of both, on some notices of the run.

    Raises
    ------
    UserError
        If the folder exists, a package is missing, or the file does not compute what torch does.
    """
    path = free_folder(out)
    try:
        import onnx  # noqa: F401 (torch needs both)
        import onnxruntime
        import onnxscript  # noqa: F401
        from onnxruntime.quantization import QuantType, quantize_dynamic
        from torch.onnx import export as to_onnx
    except ImportError as error:
        raise UserError(LACKING) from error
    model, tokenizer = load_model(run)
    blends, known = read_blends(run), training_rows(run)
    texts = known.texts[:: max(1, len(known.texts) // SAMPLED_TEXTS)][:SAMPLED_TEXTS] if known else list(EXAMPLES)
    table = encode(texts, tokenizer, run.config.max_length)
    wrapped, heads = Calibrated(model, blends), list(run.classes)
    with create_new(path) as folder, in_eval_mode(wrapped), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, about its own exporter
        folder.mkdir()
        file, shape = folder / MODEL, {0: "rows", 1: "tokens"}
        logger.info("Escribiendo el codificador como ONNX…")
        to_onnx(
            wrapped,
            tuple(encode(EXAMPLES, tokenizer, run.config.max_length).batch(np.arange(2))),
            str(file),
            input_names=["ids", "mask"],
            output_names=heads,
            dynamic_shapes=(shape, shape),
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        if int8:
            exact = file.rename(folder / "fp32.onnx")
            # Reduced range: on processors without VNNI, sums of two products of 8 bits would saturate.
            quantize_dynamic(exact, file, weight_type=QuantType.QInt8, per_channel=True, reduce_range=True)
            exact.unlink()
        session = onnxruntime.InferenceSession(str(file))

        def by_torch(ids: torch.Tensor, mask: torch.Tensor) -> list[np.ndarray]:
            logits = {head: values.numpy() for head, values in model(ids, mask).items()}
            return list(apply(blends, {ENCODER: logits}, ENCODER).values())

        def by_file(ids: torch.Tensor, mask: torch.Tensor) -> list[np.ndarray]:
            return session.run(heads, {"ids": ids.numpy(), "mask": mask.numpy()})

        batches = [table.batch(rows) for rows in np.array_split(np.argsort(table.lengths), max(1, len(texts) // 16))]
        distance, equal = _compare([by_torch(*batch) for batch in batches], [by_file(*batch) for batch in batches])
        if not int8 and not distance < FARTHEST:
            raise UserError(f"El archivo ONNX no da lo mismo que torch (difiere en {num(distance, 6)}). No se guarda.")
        torch_speed, file_speed = _speeds([by_torch, by_file], batches, len(texts))
        shutil.copy(run.path / "encoder" / "tokenizer.json", folder)
        names = run.metadata["data"]["columns"]
        roles = ["descripcion", *appended(names, run.config.text_fields, heads)]
        write_json(
            folder / "settings.json",
            {
                "max_length": run.config.max_length,
                "columns": [(field_title(role), names[role]) for role in roles],
                "classes": run.classes,
            },
        )
        write_text(folder / SCRIPT, Path(__file__).with_name(f"{SCRIPT}.j2").read_text(encoding="utf-8"))
    note = " (int8)" if int8 else ""
    logger.info(
        f"Exportado{note} a {path}: {num(100 * equal, 1)} % de las predicciones iguales a las de torch, y su confianza "
        f"a {num(distance, 6)} como mucho, en {num(len(texts))} avisos. {num(file_speed)} avisos por segundo; torch, "
        f"{num(torch_speed)}. Contiene el codificador con su calibración; no el modelo simple ni la mezcla, que "
        f"necesitan este paquete: equivale a predict --with {ENCODER}. Para puntuar un CSV: python {SCRIPT} ENTRADA.csv"
        " SALIDA.csv"
    )
    return {"out": str(path), "distance": distance, "equal": equal, "rows_per_second": file_speed, "torch": torch_speed}


def _compare(expected: list[list[np.ndarray]], computed: list[list[np.ndarray]]) -> tuple[float, float]:
    """Return the largest difference of a probability, and the share of the predictions that are equal."""
    pairs = [(a, b) for ours, theirs in zip(expected, computed, strict=True) for a, b in zip(ours, theirs, strict=True)]
    equal = np.concatenate([a.argmax(axis=1) == b.argmax(axis=1) for a, b in pairs])
    return max(float(np.abs(a - b).max()) for a, b in pairs), float(equal.mean())


def _speeds(ways: Sequence[Callable[..., Any]], batches: Sequence[Any], rows: int) -> list[float]:
    """Return the rows per second of each way, the median of rounds in turns."""
    seconds: list[list[float]] = [[] for _ in ways]
    for _ in range(ROUNDS):
        for way, taken in zip(ways, seconds, strict=True):
            since = time.perf_counter()
            for batch in batches:
                way(*batch)
            taken.append(time.perf_counter() - since)
    return [rows / statistics.median(taken) for taken in seconds]
