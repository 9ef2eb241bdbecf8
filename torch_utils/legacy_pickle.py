"""Inert reader of EDM2 and VIVID snapshots: class names, arguments and tensors, and no code (published layout).

Such a file is a pickle whose objects carry their own Python source. Plain `pickle.load` would run it. Here only the
globals in the list below are known, each stands for data, and every other name is refused.
"""

from __future__ import annotations

import collections
import io
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dnnlib.util import UserError


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
        self.state = dict(state)

    @property
    def init_kwargs(self) -> dict[str, Any]:
        """Keyword arguments of its constructor."""
        return dict(self._entry("_init_kwargs"))

    @property
    def init_args(self) -> tuple:
        """Positional arguments of its constructor."""
        return tuple(self._entry("_init_args"))

    @property
    def modules(self) -> dict[str, LegacyObject]:
        """Its submodules by name."""
        return {name: module for name, module in self._entry("_modules").items() if module is not None}

    def state_dict(self, prefix: str = "") -> dict[str, torch.Tensor]:
        """Parameters and buffers under the names that `torch.nn.Module.state_dict` gives them."""
        tensors = {}
        for group in ("_parameters", "_buffers"):
            for name, tensor in self._entry(group).items():
                if isinstance(tensor, torch.Tensor):
                    tensors[prefix + name] = tensor.detach()
        for name, module in self.modules.items():
            if not isinstance(module, LegacyObject):
                raise ValueError(f"{prefix}{name} is not a module")
            tensors.update(module.state_dict(f"{prefix}{name}."))
        return tensors

    def _entry(self, name: str) -> Any:
        return (self.state or {}).get(name) or {}


def read_legacy_pickle(path: str | Path) -> dict[str, Any]:
    """The dict in a snapshot file, its networks as `LegacyObject`. Raises UserError for any other content."""
    try:
        with open(path, "rb") as file:
            content = _InertUnpickler(file).load()
    except OSError:
        raise
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise UserError(f"{path}: damaged, or not a snapshot in the published pickle layout ({error})") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: a snapshot holds a dict, this file holds {type(content).__name__}")
    return content


class _InertUnpickler(pickle.Unpickler):
    """Knows the globals of published snapshots only, and answers with data. New functions for every file, since a
    pickle may set attributes on what it is given."""

    def find_class(self, module: str, name: str) -> Any:
        def rebuild_tensor(storage: Any, offset: int, size: tuple, stride: tuple, *_: Any) -> torch.Tensor:
            return _rebuild_tensor(storage, offset, size, stride)

        known = {
            "dnnlib.util.EasyDict": lambda: type("EasyDict", (dict,), {}),
            "collections.OrderedDict": lambda: collections.OrderedDict,
            "torch.nn.modules.container.ModuleDict": lambda: type("ModuleDict", (LegacyObject,), {}),
            "torch_utils.persistence._reconstruct_persistent_obj": lambda: (
                lambda meta: LegacyObject(str(meta["class_name"]), dict(meta["state"]))
            ),
            "torch._utils._rebuild_tensor_v2": lambda: rebuild_tensor,
            "torch._utils._rebuild_parameter": lambda: lambda data, requires_grad, hooks: data,
            "torch.storage._load_from_bytes": lambda: lambda data: torch.load(io.BytesIO(data), weights_only=True),
        }
        found = known.get(f"{module}.{name}")
        if found is None:
            raise UserError(
                f"asks for {module}.{name}, which no published snapshot contains: refused, a pickle can run any code"
            )
        return found()

    def persistent_load(self, pid: Any) -> Any:
        raise ValueError("it refers to objects outside itself")


def _rebuild_tensor(storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> torch.Tensor:
    """A view of a storage, refused where it would reach past the end."""
    flat = torch.empty(0, dtype=storage.dtype).set_(storage)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    empty = any(n == 0 for n in size)
    if offset < 0 or min((*size, *stride, 0)) < 0 or not (empty or last < len(flat)):
        raise ValueError("a tensor reaches past the end of its storage")
    return flat.as_strided(size, stride, offset)
