"""Inert reader of EDM2 and VIVID snapshots: class names, arguments and tensors, and no code (published layout).

Such a file is a pickle whose objects carry their own Python source. Plain `pickle.load` would run it. Here only the
globals in the list below are known, each stands for data, and every other name is refused. What the pickle would build
is found out first, so that a small file cannot take much memory or time (`torch_utils.pickle_check`).
"""

from __future__ import annotations

import io
import mmap
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dnnlib.util import UserError, check_regular, one_line
from torch_utils.pickle_check import check_pickle

_MOST_OPCODES = 400_000  # published snapshots have some 100 for each tensor
_MOST_MODULES = 10_000
_MAGIC = pickle.dumps(torch.serialization.MAGIC_NUMBER, protocol=2)  # in front of a storage
_STORAGE_PICKLES, _STORAGE_OPCODES = 4, 100  # behind that: protocol version, machine, storage, its key
_STORAGE_NAMES = frozenset({"torch.storage.UntypedStorage", *(f"torch.{s.__name__}" for s in torch._storage_classes)})


@dataclass
class LegacyObject:
    """An object of a snapshot, not brought to life.

    Attributes:
        class_name: name of its class, "" for a plain container module.
        state: its `__dict__`.
    """

    class_name: str = ""
    state: dict[str, Any] | None = None

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.state = _expect(state, dict, "the state of an object")

    @property
    def init_kwargs(self) -> dict[str, Any]:
        """Keyword arguments of its constructor."""
        return dict(self._entry("_init_kwargs"))

    @property
    def init_args(self) -> tuple:
        """Positional arguments of its constructor."""
        return _expect((self.state or {}).get("_init_args") or (), tuple, "_init_args")

    @property
    def modules(self) -> dict[str, LegacyObject]:
        """Its submodules by name."""
        modules = {str(name): module for name, module in self._entry("_modules").items() if module is not None}
        return {name: _expect(module, LegacyObject, f"module {name}") for name, module in modules.items()}

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Parameters and buffers under the names that `torch.nn.Module.state_dict` gives them."""
        tensors = {}
        found = [("", self)]
        for prefix, module in found:
            for group in ("_parameters", "_buffers"):
                for name, tensor in module._entry(group).items():
                    if isinstance(tensor, torch.Tensor):
                        tensors[f"{prefix}{name}"] = tensor.detach()
            found += [(f"{prefix}{name}.", part) for name, part in module.modules.items()]
            if len(found) > _MOST_MODULES:
                raise ValueError(f"more than {_MOST_MODULES} modules")
        return tensors

    def _entry(self, name: str) -> dict:
        return _expect((self.state or {}).get(name) or {}, dict, name)


def read_legacy_pickle(path: str | Path) -> dict[str, Any]:
    """The dict in a snapshot file, its networks as `LegacyObject`. Raises UserError for any other content."""
    check_regular(path)
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            check_pickle(data, _MOST_OPCODES)
            content = _InertUnpickler(file, len(data)).load()
    except OSError:
        raise
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise UserError(
            f"{path}: damaged, or not a snapshot in the published pickle layout ({one_line(error)})"
        ) from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: a snapshot holds a dict, this file holds {type(content).__name__}")
    return content


class _PlainDict(dict):
    """Stands for the dictionaries of snapshots. It copies nothing, so that nothing can be copied over and over."""

    def __init__(self) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        pass


class _InertUnpickler(pickle.Unpickler):
    """Knows the globals of published snapshots only, and answers with data. New functions for every file, since a
    pickle may set attributes on what it is given."""

    def __init__(self, file: io.BufferedReader, size: int) -> None:
        super().__init__(file)
        self._left = size  # bytes of storages to come, in a file of that size

    def find_class(self, module: str, name: str) -> Any:
        known = {
            "dnnlib.util.EasyDict": lambda: type("EasyDict", (_PlainDict,), {}),
            "collections.OrderedDict": lambda: type("OrderedDict", (_PlainDict,), {}),
            "torch.nn.modules.container.ModuleDict": lambda: type("ModuleDict", (LegacyObject,), {}),
            "torch_utils.persistence._reconstruct_persistent_obj": lambda: (
                lambda meta: LegacyObject(str(meta["class_name"]), _expect(meta["state"], dict, "the state"))
            ),
            "torch._utils._rebuild_tensor_v2": lambda: lambda *arguments: _rebuild_tensor(*arguments[:4]),
            "torch._utils._rebuild_parameter": lambda: lambda data, requires_grad, hooks: data,
            "torch.storage._load_from_bytes": lambda: lambda data: self._load_storage(data),
        }
        found = known.get(f"{module}.{name}")
        if found is None:
            raise UserError(
                f"asks for {one_line(f'{module}.{name}', 100)}, which no published snapshot contains: "
                f"refused, a pickle can run any code"
            )
        return found()

    def persistent_load(self, pid: Any) -> Any:
        raise ValueError("it refers to objects outside itself")

    def _load_storage(self, data: bytes) -> Any:
        self._left -= len(_expect(data, bytes, "a storage"))
        if self._left < 0:
            raise ValueError("storages of more bytes than the file has")
        if not data.startswith(_MAGIC):
            raise ValueError("a storage in another format than torch's old one")
        stream = io.BytesIO(data)
        stream.seek(len(_MAGIC))
        for _ in range(_STORAGE_PICKLES):
            check_pickle(stream, _STORAGE_OPCODES, names=_STORAGE_NAMES, most_integer=max(len(data), 1 << 10))
        return torch.load(io.BytesIO(data), weights_only=True)


def _rebuild_tensor(storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> torch.Tensor:
    """A view of a storage, refused where it would reach past the end or show more than is there."""
    flat = torch.empty(0, dtype=storage.dtype).set_(storage)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    empty = any(n == 0 for n in size)
    if offset < 0 or min((*size, *stride, 0)) < 0 or not (empty or last < len(flat)):
        raise ValueError("a tensor reaches past the end of its storage")
    tensor = flat.as_strided(size, stride, offset)
    if tensor.numel() > len(flat):
        raise ValueError("a tensor is larger than its storage")
    return tensor


def _expect(value: Any, kind: type, what: str) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"{what} is no {kind.__name__}")
    return value
