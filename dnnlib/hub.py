"""Files of model repositories on the Hugging Face Hub, or on what HF_ENDPOINT names: by name, and of bounded size.

`huggingface_hub` talks to it and keeps the cache; HF_HUB_OFFLINE, HF_TOKEN and its other variables hold.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from dnnlib.download import LEFT_FREE, MOST_BYTES
from dnnlib.util import UserError, format_bytes, one_line

_PART = r"[A-Za-z0-9][\w.-]{0,95}"
_NAME = re.compile(rf"({_PART}/{_PART})(?:@({_PART}(?:/{_PART})*))?", re.ASCII)
_FILES = (".safetensors", ".json", ".pkl", ".pt", ".pth", ".bin", ".ckpt")  # ends of names that mean a local file


def is_hub_name(name: str) -> bool:
    """Whether this is ``owner/repository`` or ``owner/repository@revision``, and can be no path.

    It is the path of something that is missing where its first part is here, or its end is that of a file.
    """
    match = _NAME.fullmatch(name)
    return match is not None and not match[1].endswith(_FILES) and not Path(name.split("/")[0]).exists()


def hub_folder(name: str, folders: Sequence[str], files: Mapping[str, int]) -> Path:
    """The local copy of the first of `folders` in a repository that has the first of `files`, with all of them in it.

    Args:
        name: see `is_hub_name`; a revision is a branch, a tag or a commit, by default ``main``.
        folders: in the repository, in order of preference; "" is its root.
        files: names, and the most bytes that each may have. All come from one commit; nothing else is fetched.

    Raises UserError, in one line, where that is not to be had, also for want of a connection.
    """
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        EntryNotFoundError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    repository, _, revision = name.partition("@")
    first, *others = files
    missing: EntryNotFoundError | None = None
    try:
        for folder in folders:
            prefix = f"{folder}/" if folder else ""
            try:
                path = _fetch(repository, prefix + first, revision or None, files[first])
                commit = path.parents[prefix.count("/")].name
                for other in others:
                    _fetch(repository, prefix + other, commit, files[other])
                return path.parent
            except EntryNotFoundError as error:
                missing = error
    except RepositoryNotFoundError:
        reason = "there is no such file or folder here, and on the Hub no such repository, or none open to you"
        raise UserError(f"{name}: {reason} (HF_TOKEN says who you are)") from None
    except RevisionNotFoundError:
        raise UserError(f"{name}: the repository has no such revision") from None
    except _failures() as error:
        raise UserError(f"{name}: the Hub's client failed ({one_line(error)})") from None
    if isinstance(missing, LocalEntryNotFoundError):
        if constants.HF_HUB_OFFLINE:
            raise UserError(f"{name} is not in the cache of the Hub, and HF_HUB_OFFLINE is set: fetch it once without")
        raise UserError(f"{name} is no file or folder here, and {constants.ENDPOINT} cannot be reached to fetch it")
    where = " or ".join(f"{folder}/" if folder else "the root" for folder in folders)
    raise UserError(f"{name}: the repository has no {' and '.join(files)} in {where}")


def _fetch(repository: str, file: str, revision: str | None, most: int) -> Path:
    """One file, of `most` bytes at most. Raises what `huggingface_hub` raises, and UserError for one that is larger."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

    online = not constants.HF_HUB_OFFLINE
    if online:
        try:
            found = get_hf_file_metadata(hf_hub_url(repository, file, revision=revision))
        except (EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError):
            raise
        except _failures():
            online = False
        else:
            if not isinstance(try_to_load_from_cache(repository, file, revision=found.commit_hash), str):
                _check_size(file, found.size, most)
    path = Path(hf_hub_download(repository, file, revision=revision, local_files_only=not online))
    _check_size(file, path.stat().st_size, most, room=False)
    return path


def _failures() -> tuple[type[Exception], ...]:
    """Return what the Hub's client raises where something is wrong: its own errors, and all of the HTTP library."""
    from huggingface_hub.errors import HfHubHTTPError

    return OSError, *(base for base in HfHubHTTPError.__bases__ if issubclass(base, Exception))


def _check_size(file: str, size: int | None, most: int, room: bool = True) -> None:
    """Raise UserError where a file is too large to be read, or there is no `room` for it; size None is not known."""
    from huggingface_hub import constants

    most = min(most, MOST_BYTES)
    if room:
        cache = Path(constants.HF_HUB_CACHE)
        existing = next(folder for folder in (cache, *cache.parents) if folder.exists())
        most = min(most, shutil.disk_usage(existing).free - LEFT_FREE)
    if size is None or size > most:
        has = "does not say how large it is" if size is None else f"has {format_bytes(size)}"
        raise UserError(f"{file} {has}, and at most {format_bytes(max(most, 0))} are taken")
