"""Arrays from .npy files that anybody may have written."""

from __future__ import annotations

import os
from tokenize import TokenError

import numpy as np

from dnnlib.util import UserError, check_regular, one_line


def read_array(path: str | os.PathLike[str]) -> np.ndarray:
    """The numbers in a .npy file, mapped: whatever its head says, they take no more memory than there is in the file.

    Raises UserError for anything else, FileNotFoundError where there is none.
    """
    check_regular(path)
    try:
        array = np.load(path, allow_pickle=False, mmap_mode="r")
    except FileNotFoundError:
        raise
    # The head is a Python literal, so that what can go wrong is what can go wrong in reading Python.
    except (OSError, ValueError, EOFError, SyntaxError, TokenError, TypeError, LookupError, ArithmeticError) as error:
        raise UserError(f"{one_line(path)} is damaged, or no .npy file ({one_line(error, 100)})") from None
    except (MemoryError, RecursionError):
        raise UserError(f"{one_line(path)} is damaged, or no .npy file") from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
        raise UserError(f"{one_line(path)} holds no array of numbers")
    return array
