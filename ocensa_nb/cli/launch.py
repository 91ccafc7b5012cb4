"""Start a verb in several processes of this machine, with the launcher of torchrun.

`train --processes 2` is `torchrun --nproc_per_node=2 -m ocensa_nb train` whose exit code and last message are those of
the verb: torchrun itself ends with its own report and 1. For several machines use torchrun, which finds them.
"""

import logging
import os
import sys
import uuid
from collections.abc import Sequence

from ocensa_nb.errors import UserError

STOP_SECONDS = 300  # for the last checkpoint; torchrun kills the processes after 30 s


def launch(words: Sequence[str], processes: int) -> int:
    """Run `python -m ocensa_nb` in several processes; return the exit code of the first one that failed, or 0."""
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    if not 1 <= processes <= (most := os.cpu_count() or 1):
        raise UserError(f"processes = {processes}: debe ser de 1 a {most}, los núcleos de esta máquina.")
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(STOP_SECONDS))
    logging.disable(logging.CRITICAL)  # the processes say what happened
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",  # a free port
        max_restarts=0,
        logs_specs=DefaultLogsSpecs(),
    )
    try:
        elastic_launch(config, sys.executable)("-m", "ocensa_nb", *words)
    except ChildFailedError as error:
        codes = [failure.exitcode for _, failure in sorted(error.failures.items())]
        return next((code for code in codes if code > 0), 1)  # negative: killed, and the others said so
    except SignalException as error:
        return 128 + error.sigval
    return 0
