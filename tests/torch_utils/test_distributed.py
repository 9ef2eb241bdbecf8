"""One process, two processes, and devices that are not there."""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch

from dnnlib.util import UserError
from torch_utils.distributed import start_processes


def _ask_all(rank: int, store: Path, answers: Connection) -> None:
    torch.set_num_threads(1)
    where = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": 1}
    os.environ.update({name: str(value) for name, value in where.items()})
    torch.distributed.init_process_group("gloo", f"file://{store}", rank=rank, world_size=2)
    processes = start_processes("cpu")
    answers.send(
        {
            "place": (processes.rank, processes.world_size, processes.is_main),
            "share": processes.share(range(5)),
            "gather": processes.gather([f"from {rank}"]),
            "mean": processes.mean(torch.tensor([rank, 10.0])).tolist(),
            "any": (processes.any(rank == 1), processes.any(False)),
        }
    )
    processes.barrier()
    processes.close()


def test_two_processes(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe(duplex=False) for _ in range(2)]
    children = [context.Process(target=_ask_all, args=(rank, tmp_path / "store", pipes[rank][1])) for rank in range(2)]
    for child in children:
        child.start()
    answers = [pipe.recv() for pipe, _ in pipes if pipe.poll(60)]
    for child in children:
        child.join(20)
        child.kill()
    assert [child.exitcode for child in children] == [0, 0]
    assert [answer["place"] for answer in answers] == [(0, 2, True), (1, 2, False)]
    assert [answer["share"] for answer in answers] == [[0, 2, 4], [1, 3]]
    for answer in answers:
        assert answer["gather"] == ["from 0", "from 1"]
        assert answer["mean"] == [0.5, 10]
        assert answer["any"] == (True, False)


def test_alone() -> None:
    processes = start_processes("cpu")
    assert (processes.rank, processes.world_size, processes.is_main) == (0, 1, True)
    assert processes.share([1, 2]) == [1, 2]
    assert processes.gather(["a"]) == ["a"]
    assert float(processes.mean(torch.tensor(3.0))) == 3
    assert processes.any(True)
    assert not processes.any(False)


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "tpu", *([] if torch.cuda.is_available() else ["cuda"])])
def test_devices_that_are_not_there(device: str) -> None:
    with pytest.raises(UserError, match=r"unknown device|not available here"):
        start_processes(device)


@pytest.mark.parametrize(
    "environment",
    [
        {"WORLD_SIZE": "2"},
        {"PMI_SIZE": "2"},
        {"OMPI_COMM_WORLD_SIZE": "4"},
        {"LOCAL_RANK": "0"},
        {"WORLD_SIZE": "many"},
        {"WORLD_SIZE": "2", "RANK": "x", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"},
    ],
)
def test_what_another_launcher_has_set_is_one_line(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=r"=\w+ is set, but not by torchrun") as caught:
        start_processes("cpu")
    assert next(iter(environment)) in str(caught.value)
