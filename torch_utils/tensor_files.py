"""Files of `torch.save`, read as what they should be: plain data and tensors that lie in the file, mapped."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import torch

from dnnlib.util import ZIP_DAMAGE, check_regular, one_line
from torch_utils.pickle_check import PickleError, check_pickle

_MOST_OPCODES = 1_000_000  # a chunk of 100 MB of pixelSplat: some 100,000


def load_tensor_file(path: str | Path) -> Any:
    """The content of a file that `torch.save` wrote, its tensors mapped from the file, on the CPU.

    Nothing in it is executed, and nothing is built before it is known to be no larger than the file. Raises ValueError,
    in one line, for anything else, OSError where it cannot be read.
    """
    check_regular(path)
    try:
        _check_archive(path)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, PickleError):
        raise
    except (
        *(*ZIP_DAMAGE, LookupError, TypeError, AttributeError, AssertionError, MemoryError, pickle.UnpicklingError),
    ) as error:  # what torch and zipfile say of damage
        raise ValueError(one_line(str(error).partition("\n")[0]) or type(error).__name__) from None
    for tensor in tensors_in(content):
        if tensor.layout is not torch.strided or tensor.device.type != "cpu":
            raise ValueError("a tensor that is not dense")
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise ValueError("a tensor that is larger than its storage")
    return content


def _check_archive(path: str | Path) -> None:
    """Raise ValueError unless everything in the archive lies there as it is, and its pickle is one of tensors."""
    size = Path(path).stat().st_size
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
        if any(record.compress_type != zipfile.ZIP_STORED for record in records):
            raise ValueError("compressed records, which torch never writes")
        if sum(record.file_size for record in records) > size:
            raise ValueError("records longer than the file")
        pickles = [record for record in records if record.filename.endswith("data.pkl")]
        if len(pickles) != 1:
            raise ValueError("no archive that torch wrote")
        check_pickle(io.BytesIO(archive.read(pickles[0])), _MOST_OPCODES, names=_names())


@cache
def _names() -> frozenset[str]:
    """The globals of files of tensors."""
    kinds = torch._storage_classes - {torch.UntypedStorage, torch.storage.TypedStorage}  # calls of these take memory
    storages = {f"{kind.__module__}.{kind.__name__}" for kind in kinds}
    return frozenset({"collections.OrderedDict", "torch._utils._rebuild_tensor_v2", "torch.Size", *storages})


def tensors_in(content: Any) -> Iterator[torch.Tensor]:
    """All tensors in nested dicts and lists."""
    if isinstance(content, torch.Tensor):
        yield content
    elif isinstance(content, dict):
        for value in content.values():
            yield from tensors_in(value)
    elif isinstance(content, (list, tuple)):
        for value in content:
            yield from tensors_in(value)
