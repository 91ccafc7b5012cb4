"""One case of an experiment: its settings, metrics and seconds, as the files of its folder say."""

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from ocensa_nb.config import TrainConfig
from ocensa_nb.evaluation.blend import AUTO
from ocensa_nb.experiments.case_files import FINISHED, RUN

# What two machines must share for their seconds to be compared; the free disk and the Python version may differ.
_MACHINE = ("platform", "system", "cores", "ram_gib", "gpu", "gpu_gib")


@dataclass(frozen=True)
class CaseResult:
    """One case of an experiment, as its files say.

    Attributes
    ----------
    folder
        The case's folder.
    state
        The content of case.json.
    metadata
        The content of the run's config.json; empty unless the case is finished.
    metrics
        The content of the run's metrics.json; empty unless the case is finished.
    evaluation
        The content of evaluation/metrics.json; empty if the run itself has the test metrics.
    beside
        Whether other cases ran at the same time.
    building
        Seconds to compute the frozen features that this case found in the cache; None if it computed its own.
    """

    folder: Path
    state: dict[str, Any]
    metadata: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    evaluation: dict[str, Any] = field(default_factory=dict)
    beside: bool = False
    building: float | None = None

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.folder.name

    @property
    def title(self) -> str:
        """What the user calls the group of the case."""
        return str(self.state.get("title") or self.name)

    @property
    def seed(self) -> int:
        """The seed."""
        return self.state["seed"]

    @property
    def is_finished(self) -> bool:
        """Whether the case has results."""
        return self.state["status"] == FINISHED and bool(self.metrics)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the training and the evaluation, without the seed."""
        own = {name: value for name, value in self.state["settings"].items() if name != "seed"}
        evaluation = {"predict_with": AUTO, "data": "", **self.state["evaluation"]}
        if evaluation["predict_with"] != AUTO:
            own["predict_with"] = evaluation["predict_with"]
        if evaluation["data"]:
            own["evaluation_data"] = evaluation["data"]
        return own

    @property
    def config(self) -> dict[str, Any]:
        """All settings of the run; those of the case, if it is not finished."""
        return self.metadata.get("config") or self.state["settings"]

    @property
    def monitor(self) -> str:
        """The monitored metric."""
        return str(self.config.get("monitor", TrainConfig.monitor))

    @property
    def heads(self) -> list[str]:
        """Names of the labels; none if the case is not finished."""
        return list(self.metadata["config"]["heads"]) if self.is_finished else []

    @property
    def shares_run(self) -> bool:
        """Whether the case evaluates the run of another case."""
        return self.state["run"] != RUN

    @property
    def is_resumed(self) -> bool:
        """Whether its training was interrupted and resumed."""
        return self._seconds("earlier") > 0

    @property
    def predicts_with(self) -> str:
        """What the case predicts with: `auto` (per label, the best in validation), `encoder`, `linear` or `blend`."""
        return self.state["evaluation"].get("predict_with", AUTO)

    def score(self, metric: str, side: str = "test", model: str = "") -> float | None:
        """Return a metric; None if it is unknown.

        Parameters
        ----------
        metric
            Such as `f1` or `causa_f1`.
        side
            `val` or `test`. For a case with its own evaluation data, `test` is that data.
        model
            `encoder`, `linear` or `blend`; "" for what the case predicts with.
        """
        if side == "test" and self.evaluation:
            found = self.evaluation["models"].get(model, {}) if model else self.evaluation["metrics"]
        else:
            source = model or self.predicts_with
            found = self.metrics.get(side, {}) if source == AUTO else self.metrics.get(source, {}).get(side, {})
        value = found.get(metric)
        return float(value) if isinstance(value, int | float) else None

    def seconds(self) -> dict[str, float]:
        """Return the seconds of the training, its frozen layers, the simple model, and their sum as `total`.

        Frozen layers found in the cache count with the seconds that computing them took, so that the order of the cases
        does not change the comparison.
        """
        frozen = self._seconds("features") if self.building is None else max(self.building, self._seconds("features"))
        parts = {"training": self._seconds("training"), "frozen": frozen, "linear": self._seconds("linear")}
        return parts | {"total": sum(parts.values())}

    def saved_seconds(self) -> float:
        """Return the seconds saved because another case had computed the frozen layers."""
        return 0.0 if self.building is None or self.shares_run else max(0.0, self.building - self._seconds("features"))

    def machine(self) -> tuple[Any, ...]:
        """Return what must be equal for the seconds of two cases to be compared."""
        hardware = self.metadata.get("hardware", {})
        threads = self.state.get("threads") or self.metadata.get("threads")
        versions = self.metadata.get("versions", {})
        own = (self.metadata.get("device"), versions.get("torch"), threads, self.state.get("jobs"), self.beside)
        return (*(hardware.get(name) for name in _MACHINE), *own)

    def interval(self) -> tuple[float, float] | None:
        """Return when the case started and ended, in seconds since 1970; None if unknown."""
        started, seconds = self.state.get("started"), self.state.get("seconds")
        if not isinstance(started, str) or not isinstance(seconds, int | float):
            return None
        try:
            begin = datetime.fromisoformat(started).timestamp()
        except ValueError:
            return None
        return begin, begin + seconds

    def _seconds(self, name: str) -> float:
        value = self.metadata.get("seconds", {}).get(name, 0.0)
        return float(value) if isinstance(value, int | float) else 0.0
