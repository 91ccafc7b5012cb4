"""Run a function in several processes that work together, as torchrun starts them."""

import os
import queue
import socket
import traceback

from ocensa_nb.runtime import distributed
from tests.helpers import forked


def run_ranks(function, *arguments, size=2):
    """Return what `function(world, *arguments)` returns in each process, by rank; fail if any of them raises.

    `function` belongs to a module: each process imports it.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = forked.context()
    results = context.Queue()
    common = {"WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    workers = [
        context.Process(target=_work, args=(results, common | {"RANK": rank, "LOCAL_RANK": rank}, function, arguments))
        for rank in range(size)
    ]
    for worker in workers:
        worker.start()
    found = {}
    while len(found) < size:
        try:
            rank, result = results.get(timeout=1)
            found[rank] = result
        except queue.Empty:
            dead = [worker for worker in workers if worker.exitcode not in (None, 0)]
            assert not dead, f"exit codes {[worker.exitcode for worker in workers]}"
    for worker in workers:
        worker.join(60)
    errors = [text for text, _ in found.values() if text]
    assert not errors, "\n".join(errors)
    return [found[rank][1] for rank in range(size)]


def _work(results, environ, function, arguments):
    os.environ.update({name: str(value) for name, value in environ.items()})
    error, value = "", None
    try:
        with distributed.join(os.environ) as world:
            value = function(world, *arguments)
    except BaseException:
        error = traceback.format_exc()
    results.put((environ["RANK"], (error, value)))
