"""Measure ways to score notices with a finished run: rows per second, and what they change in the predictions.

python -m tests.benchmarks.scoring --run RUN --data avisos.csv --rows 700 --repeats 5

The ways take turns. Each is compared with fp32: the share of rows with the same prediction per label, as the run
predicts, the largest difference of a probability, and the difference of the weighted F1. Then: the seconds of each
part, how many distinct texts there are, and how many notices the linear model could decide alone.
"""

import copy
from collections.abc import Callable, Mapping
from statistics import median

import numpy as np
import torch
import tyro
from sklearn.metrics import f1_score
from torch import nn

from ocensa_nb.config import AUTO, ENCODER, LINEAR
from ocensa_nb.engine.inference import logits
from ocensa_nb.errors import num
from ocensa_nb.evaluation.blend import apply
from ocensa_nb.evaluation.predictor import Predictor
from ocensa_nb.evaluation.rows import read_rows
from ocensa_nb.models.classifier import MultiHeadClassifier
from ocensa_nb.models.tokens import TokenTable, encode
from ocensa_nb.runs.run import Run
from ocensa_nb.runtime import logs, machine
from ocensa_nb.runtime.precision import fastest_on_cpu
from ocensa_nb.runtime.timing import timed

AGREEMENT = 0.995  # share of rows that must keep their prediction


class Int8Linear(nn.Module):
    """A linear layer with int8 weights, a scale per output, and 7-bit inputs, with a scale per token or per batch.

    With 8 bits, a processor without VNNI saturates the sums of two products.
    """

    def __init__(self, linear: nn.Linear, per_token: bool) -> None:
        super().__init__()
        weight, self.per_token, self.bias = linear.weight.detach(), per_token, linear.bias.detach()
        scales = (weight.abs().amax(1) / 127).double()
        zeros = torch.zeros(len(weight), dtype=torch.long)
        quantized = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
        self.packed = torch.ops.quantized.linear_prepack(quantized, None if per_token else self.bias)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if not self.per_token:
            return torch.ops.quantized.linear_dynamic(inputs, self.packed, True)
        size = inputs.abs().amax(-1, keepdim=True).clamp_min_(1e-8)
        return torch.addcmul(self.bias, torch.ops.quantized.linear_dynamic(inputs / size, self.packed, True), size)


class RoundedLinear(nn.Module):
    """A linear layer in fp32 with int8 weights and the inputs of a token rounded to 8 bits, as VNNI computes it."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight, self.bias = linear.weight.detach(), linear.bias.detach()
        scales = weight.abs().amax(1, keepdim=True) / 127
        self.weight = (weight / scales).round() * scales

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        low, high = inputs.amin(-1, keepdim=True).clamp_max(0), inputs.amax(-1, keepdim=True).clamp_min(0)
        scale = (high - low).clamp_min(1e-8) / 255
        zero = (-low / scale).round()
        rounded = (((inputs / scale).round() + zero).clamp(0, 255) - zero) * scale
        return nn.functional.linear(rounded, self.weight, self.bias)


def replaced(model: MultiHeadClassifier, sample: list[torch.Tensor], layer: Callable, without: str = "") -> nn.Module:
    """Return a copy with other linear layers in the encoder, but not in its last one nor in those named `without`."""
    model = copy.deepcopy(model)
    stack = model.encoder.encoder.layer[:-1]
    for name, module in list(stack.named_modules()):
        if isinstance(module, nn.Linear) and not (without and name.endswith(without) and "attention" not in name):
            parent, _, own = name.rpartition(".")
            setattr(stack.get_submodule(parent), own, layer(module))
    model._from_ids = type(model._from_ids)(model._slice())
    model.shorten(*sample)
    return model


def ways(model: MultiHeadClassifier, sample: list[torch.Tensor]) -> dict[str, tuple[nn.Module, str]]:
    """Return the model and the precision of each way."""
    made = {
        "fp32": model,
        "int8, a scale per batch": replaced(model, sample, lambda x: Int8Linear(x, per_token=False)),
        "int8, a scale per token": replaced(model, sample, lambda x: Int8Linear(x, per_token=True)),
        "the same, without the feed-forward's output": replaced(
            model, sample, lambda x: Int8Linear(x, per_token=True), "output.dense"
        ),
        "rounded to 8 bits (not quicker)": replaced(model, sample, RoundedLinear),
    }
    found = {name: (made_model, "fp32") for name, made_model in made.items()}
    return found | ({"bf16": (model, "bf16")} if fastest_on_cpu() == "bf16" else {})


def main(run: str, data: str, rows: int = 700, repeats: int = 5) -> None:
    """Compare the ways on `rows` of the test rows; `data` is the file that the run was trained on."""
    logs.configure()
    trained = Run.load(run)
    predictor = Predictor.load(trained)
    _, every = read_rows(trained, data)
    some = every.split["test"][:rows]
    texts, fields = [every.texts[row] for row in some], every.fields.iloc[some]
    print(f"{num(len(every.texts))} notices, {num(len(set(every.texts)))} distinct texts; {num(len(some))} are scored.")
    model, tokenizer, _ = predictor._encoder
    seconds: dict[str, float] = {}
    with timed(seconds, "tokens"):
        table, entry = encode(texts, tokenizer, trained.config.max_length).unique()
    with timed(seconds, "linear model"):
        simple = predictor.linear.logits(texts, fields)
    tried = ways(model, table.sample())
    speeds, answers = measured(tried, table, repeats)
    seconds["encoder"] = len(table) / median(speeds["fp32"])
    print("Seconds of the parts:", {name: round(value, 2) for name, value in seconds.items()}, f"{machine.threads()=}")

    def blended(encoder: Mapping[str, np.ndarray], source: str = AUTO) -> dict[str, np.ndarray]:
        of_rows = {head: values[entry] for head, values in encoder.items()}
        return apply(predictor.blends, {ENCODER: of_rows, LINEAR: simple}, source)

    exact = blended(answers["fp32"])
    labels = {head: known[some] for head, known in every.labels.items()}
    for name, encoder in answers.items():
        values = blended(encoder)
        print(f"{name}: {median(speeds[name]):.0f} rows/s ({min(speeds[name]):.0f} to {max(speeds[name]):.0f})")
        for head, part in values.items():
            known, predicted, before = labels[head], part.argmax(1), exact[head].argmax(1)
            both = [f1_score(known[known >= 0], x[known >= 0], average="weighted") for x in (predicted, before)]
            print(
                f"  {head}: {np.mean(predicted == before):.4f} the same, probabilities within "
                f"{np.abs(part - exact[head]).max():.3f}, F1 {both[0] - both[1]:+.4f}"
            )
    alone = blended(answers["fp32"], LINEAR)
    decided = [decided_alone(alone[head], exact[head]) for head in exact]
    shares = {head: round(float(part.mean()), 3) for head, part in zip(exact, decided, strict=True)}
    print("Share of the notices that the linear model decides:", shares)
    print(f"All labels of a notice: {np.mean(np.all(decided, axis=0)):.3f}")


def measured(
    tried: Mapping[str, tuple[nn.Module, str]], table: TokenTable, repeats: int
) -> tuple[dict[str, list[float]], dict[str, dict[str, np.ndarray]]]:
    """Return rows per second of each repeat, and the logits, per way."""
    speeds: dict[str, list[float]] = {name: [] for name in tried}
    answers = {}
    for _ in range(repeats):
        for name, (model, precision) in tried.items():
            seconds: dict[str, float] = {}
            with timed(seconds, name):
                answers[name] = logits(model, table, np.arange(len(table)), precision)
            speeds[name].append(len(table) / seconds[name])
    return speeds, answers


def decided_alone(linear: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Return the surest rows of the linear model, so many that few of all get another prediction; bool (rows,)."""
    order = np.argsort(-linear.max(1), kind="stable")
    other = np.cumsum((linear.argmax(1) != exact.argmax(1))[order])
    decided = np.zeros(len(linear), bool)
    decided[order[: int((other <= (1 - AGREEMENT) * len(linear)).sum())]] = True
    return decided


if __name__ == "__main__":
    tyro.cli(main)
