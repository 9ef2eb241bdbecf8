from __future__ import annotations

import io
import os
import pickle
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dnnlib import UserError
from tests.golden import DATA, recipe
from tests.torch_utils.bombs import bombs
from torch_utils.legacy_pickle import LegacyObject, read_legacy_pickle


@pytest.mark.parametrize("name", ["base", "uncond"])
def test_released_layout_is_read_without_running_it(name: str) -> None:
    # the source text that these files carry raises when it is executed
    content = read_legacy_pickle(DATA / f"released-layout-{name}.pkl")
    network = content["ema"]
    assert isinstance(network, LegacyObject)
    assert network.class_name == "NVPrecond"
    assert network.init_kwargs["model_channels"] == 8
    state = network.state_dict()
    for key, tensor in state.items():
        assert tensor.dtype == torch.float16
        assert torch.equal(tensor, recipe(key, tensor.shape).half()), key


class Evil:
    """Pickles to a call of `function(*arguments)`."""

    def __init__(self, function: Callable, *arguments: object) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple:
        return self.function, self.arguments


@pytest.mark.parametrize(
    ("evil", "named"),
    [
        (Evil(os.system, "touch PWNED"), "system"),
        (Evil(eval, "1"), "builtins.eval"),
        (Evil(torch.load, "x"), "torch.serialization.load"),
        (Evil(getattr, 1, "real"), "builtins.getattr"),
    ],
)
def test_any_other_global_is_refused_by_name(
    evil: Evil, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps({"ema": evil}))
    with pytest.raises(UserError, match=named):
        read_legacy_pickle(path)
    assert not (tmp_path / "PWNED").exists()


def test_a_storage_that_hides_a_pickle_is_refused(tmp_path: Path) -> None:
    inner = io.BytesIO()
    torch.save({"x": Evil(os.system, "touch PWNED")}, inner)
    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps({"ema": Evil(torch.storage._load_from_bytes, inner.getvalue())}))
    with pytest.raises(UserError, match="damaged, or not a snapshot"):
        read_legacy_pickle(path)
    assert not Path("PWNED").exists()


def test_tensors_past_the_end_of_their_storage_are_refused(tmp_path: Path) -> None:
    storage = torch.zeros(4).untyped_storage()
    typed = torch.storage.TypedStorage(wrap_storage=storage, dtype=torch.float32, _internal=True)
    path = tmp_path / "long.pkl"
    path.write_bytes(pickle.dumps(Evil(torch._utils._rebuild_tensor_v2, typed, 0, (5,), (1,), False, {})))
    with pytest.raises(UserError, match="past the end"):
        read_legacy_pickle(path)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 0.999])
def test_truncated_files_are_one_line(share: float, tmp_path: Path) -> None:
    whole = (DATA / "released-layout-uncond.pkl").read_bytes()
    path = tmp_path / "cut.pkl"
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(UserError, match=r"cut\.pkl") as caught:
        read_legacy_pickle(path)
    assert "\n" not in str(caught.value)


def test_a_pickle_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "list.pkl"
    path.write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(UserError, match="holds a dict, this file holds list"):
        read_legacy_pickle(path)


@pytest.mark.parametrize("name", bombs())
def test_bombs_are_one_line_within_seconds_and_100_mb(name: str, tmp_path: Path) -> None:
    path = tmp_path / "bomb.pkl"
    path.write_bytes(bombs()[name])
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(UserError, match=r"bomb\.pkl") as caught:
        read_legacy_pickle(path)
    assert time.process_time() - start < 10  # half a second, where nothing shares the core
    kilobytes = 1 if sys.platform != "darwin" else 1024
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / kilobytes < 100_000
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500 + len(str(path))


def test_modules_in_themselves_and_odd_states_are_refused(tmp_path: Path) -> None:
    network = LegacyObject("NVPrecond", {"_modules": {}})
    network.state["_modules"]["again"] = network
    with pytest.raises(ValueError, match="modules"):
        network.state_dict()
    for state in ({"_modules": 5}, {"_parameters": [1]}, {"_modules": {"a": 5}}):
        with pytest.raises(ValueError, match="is no"):
            LegacyObject("NVPrecond", state).state_dict()


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "net.pkl")
    with pytest.raises(UserError, match=r"net\.pkl is .* a pipe"):
        read_legacy_pickle(tmp_path / "net.pkl")
