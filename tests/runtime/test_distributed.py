"""Processes that work together: collectives, agreement on errors, and the environment of torchrun."""

import numpy as np
import pytest
import torch

from ocensa_nb.errors import SharedError, UserError
from ocensa_nb.runtime import distributed
from ocensa_nb.runtime.distributed import ALONE, World
from tests.helpers.ranks import run_ranks

LARGE = distributed.SMALL + 3


def collectives(world):
    """Return the results of every collective, for `test_collectives_of_three_processes`."""
    rank = world.rank
    tensors = [torch.full((2, 3), float(rank)), torch.arange(LARGE) * float(rank), torch.ones(4, 2).t() * rank]
    world.sum(tensors)
    state = {"bf16": torch.arange(6, dtype=torch.bfloat16).view(2, 3), "none": torch.zeros(0), "flags": torch.ones(3)}
    state["flags"] = state["flags"].bool()
    sent = world.on_first(lambda: state)
    return {
        "sums": [tensor.numpy() for tensor in tensors],
        "largest": [world.largest(number) for number in (rank, -rank, rank == 1)],
        "all": [world.all(True), world.all(rank < 2)],
        "values": world.gather({"rank": rank, "text": "ñ" * rank}),
        "first": world.on_first(lambda: f"from {rank}"),
        "sent": {name: (str(tensor.dtype), tensor.float().tolist()) for name, tensor in sent.items()},
        "share": world.share(np.arange(8)).tolist(),
    }


def test_collectives_of_three_processes():
    found = run_ranks(collectives, size=3)
    for rank, results in enumerate(found):
        assert np.array_equal(results["sums"][0], np.full((2, 3), 3.0))
        assert np.array_equal(results["sums"][1], np.arange(LARGE) * 3.0)
        assert np.array_equal(results["sums"][2], np.full((2, 4), 3.0))
        assert results["largest"] == [2, 0, 1]
        assert results["all"] == [True, False]
        assert results["values"] == [{"rank": r, "text": "ñ" * r} for r in range(3)]
        assert results["first"] == "from 0"
        assert results["sent"] == {
            "bf16": ("torch.bfloat16", [[0, 1, 2], [3, 4, 5]]),
            "none": ("torch.float32", []),
            "flags": ("torch.bool", [1, 1, 1]),
        }
        assert results["share"] == list(range(rank, 8, 3))


def errors(world):
    """Return the type and the message of the error of each agreement, for the test below."""

    def failing(on):
        if world.rank in on:
            raise UserError(f"de {world.rank}")

    found = []
    for on in ((), (0,), (1,), (0, 1)):
        try:
            with world.agreed():
                failing(on)
            found.append(None)
        except UserError as error:
            found.append((type(error), str(error)))
    for work in (
        lambda: world.on_first(lambda: failing((0,))),
        lambda: world.require_same(lambda: world.rank, "otros"),
    ):
        with pytest.raises(UserError) as raised:
            work()
        found.append((raised.type, str(raised.value)))
    world.require_same(lambda: {"a": [1]}, "iguales")
    return found


def test_error_of_any_process_is_raised_in_all_and_shown_by_one():
    first, second = run_ranks(errors)
    assert first == [
        None,
        (UserError, "de 0"),
        (UserError, "de 1"),
        (UserError, "de 0"),
        (UserError, "de 0"),
        (UserError, "otros"),
    ]
    assert second == [
        None,
        (SharedError, "de 0"),
        (UserError, "de 1"),
        *[(SharedError, "de 0")] * 2,
        (SharedError, "otros"),
    ]


def lose(world):
    """End the second process without a word; return the error of the first."""
    if world.rank:
        raise SystemExit
    with pytest.raises(UserError) as raised:
        world.sum([torch.ones(3)])
    return str(raised.value)


def test_collective_after_the_end_of_another_process_raises_user_error():
    with pytest.raises(AssertionError, match="SystemExit") as raised:
        run_ranks(lose)
    assert "DID NOT RAISE" not in str(raised.value)
    assert distributed.LOST.partition("{}")[2] in str(raised.value)


def test_one_process_alone_returns_what_it_was_given():
    tensor = torch.ones(3)
    ALONE.sum([tensor])
    assert tensor.tolist() == [1, 1, 1]
    assert ALONE.largest(3) == 3
    assert ALONE.gather("a") == ["a"]
    assert ALONE.on_first(lambda: 4) == 4
    assert ALONE.share(np.arange(3)).tolist() == [0, 1, 2]
    with pytest.raises(UserError, match="mío"), ALONE.agreed():
        raise UserError("mío")
    with distributed.join({}) as world, distributed.join({"WORLD_SIZE": "1"}) as again:
        assert (world, again, distributed.world()) == (ALONE, ALONE, ALONE)


def test_more_processes_than_gpus_raises_user_error(monkeypatch):
    monkeypatch.setattr(distributed.machine, "device", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with (
        pytest.raises(UserError, match=r"Hay 3 procesos y 2 GPU.*--nproc_per_node=2"),
        distributed.join({"WORLD_SIZE": "3", "LOCAL_WORLD_SIZE": "3", "RANK": "0"}),
    ):
        pass


def test_each_process_is_bound_to_its_gpu(monkeypatch):
    def stop(backend, **named):
        raise ValueError(named["device_id"])

    monkeypatch.setattr(distributed.machine, "device", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(distributed.dist, "init_process_group", stop)
    environ = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "OMP_NUM_THREADS": "2"}
    with pytest.raises(UserError, match="cuda:1"), distributed.join(environ):
        pass


def test_share_of_rows_sorted_by_length_is_even():
    lengths = np.sort(np.random.default_rng(0).integers(4, 60, 64))
    tokens = [lengths[World(rank, 4).share(np.arange(64))].sum() for rank in range(4)]
    assert max(tokens) / min(tokens) < 1.1
