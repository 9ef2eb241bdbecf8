"""Downloads that survive a bad network: cached, resumed, checked, and safe for several processes at once.

Beside a cached file NAME lie NAME.sha256 (its hash, as ``sha256sum`` writes it) and NAME.lock; while it is on its way,
NAME.part (what has come) and NAME.part.version (which version of the remote file that is the beginning of).
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import time
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import requests
from tqdm import tqdm

from dnnlib.locks import turn
from dnnlib.util import (
    UserError,
    atomic_path,
    commit_file,
    file_sha256,
    format_bytes,
    one_line,
    public_address,
    writable_directory,
)

_log = logging.getLogger(__name__)

_TIMEOUT_S = 30.0  # without a single byte
_ATTEMPTS = 5  # in a row that bring nothing new
_BACKOFF_S = 1.0  # before the second attempt; doubles with each
_BLOCK = 1 << 16  # of a cut connection, less than one block is lost
_WEB_PAGE = "a web page is there, not the file"
MOST_BYTES = 1 << 37  # of a file
LEFT_FREE = 1 << 28  # bytes of the disk that no download takes
_RETRY_STATUS = {408, 425, 429, 500, 502, 503, 504}


class _Interrupted(Exception):
    """This attempt failed in a way that another one may not."""


class _Misfit(Exception):
    """Raised where what is here is not the beginning of what the server has."""


class _Refused(Exception):
    """There is no point in another attempt."""


class _TooLong(_Misfit):
    """More has come than there can be."""

    def __str__(self) -> str:
        return "the server sent more than there can be"


class _Session(requests.Session):
    """Follows redirects, but not from https to where anybody on the way can put another file in its place."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        target = super().get_redirect_target(resp)
        if target and resp.url.startswith("https:") and urljoin(resp.url, target).startswith("http:"):
            raise _Refused("it leads from https to http")
        return target


def download(
    url: str, cache_dir: str | os.PathLike[str] | None = None, sha256: str | None = None, progress: bool = True
) -> Path:
    """The local copy of the file at `url`, fetched where there is none yet.

    Args:
        url: http or https.
        cache_dir: where copies live; default ``$VIVID_CACHE``, else ``~/.cache/vivid``.
        sha256: the hash that the file must have. Without it, the one recorded when it was fetched must still hold. A
            copy that somebody put there by hand, without a record, is taken as it is.
        progress: show a bar, if standard error is a terminal.

    Raises UserError where the address holds no such file (also: a web page in its place, another hash) or cannot be
    reached; what has come so far stays, and the next call goes on from there.
    """
    try:
        name = _cache_name(url)
    except ValueError:
        raise UserError(f"{one_line(public_address(url))!r} is no http or https address") from None
    shown = one_line(public_address(url))
    try:
        folder = Path(cache_dir or os.environ.get("VIVID_CACHE") or "~/.cache/vivid").expanduser()
    except RuntimeError:
        raise UserError("there is no home folder to keep downloads in: set VIVID_CACHE to a folder") from None
    path = folder / name
    if _is_intact(path, sha256):
        return path
    writable_directory(folder)
    for suffix in (".lock", ".part", ".part.version", ".sha256"):  # in a folder of several users, theirs may lead away
        if _beside(path, suffix).is_symlink():
            _beside(path, suffix).unlink()
    with turn(_beside(path, ".lock"), lambda: _log.info("another process is fetching %s; waiting for it", shown)):
        if _is_intact(path, sha256):
            return path
        if path.exists():
            _log.warning("%s does not have the SHA-256 it should have; fetching it again", path)
        try:
            _fetch(url, path, sha256, progress)
        except _Refused as error:
            reason = one_line(str(error).replace(url, shown))
            raise UserError(f"cannot fetch {shown}: {reason}; check the address, or put the file at {path}") from None
    return path


def _cache_name(url: str) -> str:
    """The file's own name, with eight digits that tell apart files of one name from different addresses.

    Raises ValueError where `url` is none, or of another kind than http and https.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(url)
    name = Path(re.sub(r"[^\w.-]", "_", unquote(Path(parts.path).name))[-100:] or "file")
    return f"{name.stem}-{hashlib.sha256(url.encode()).hexdigest()[:8]}{name.suffix}"


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _is_intact(path: Path, sha256: str | None) -> bool:
    if not path.is_file():
        return False
    record = _beside(path, ".sha256")
    expected = sha256 or (
        record.read_text(encoding="utf-8", errors="replace").split(" ")[0] if record.is_file() else None
    )
    return expected is None or file_sha256(path) == expected.lower()


def _fetch(url: str, path: Path, sha256: str | None, progress: bool) -> None:
    """Fetch in as many attempts as it takes while each brings something new, check, and put in place."""
    part = _beside(path, ".part")
    farthest = failures = 0
    while True:
        try:
            _transfer(url, part, progress, trusting=sha256 is not None)
            break
        except _Interrupted as error:
            reason = str(error)
        size = part.stat().st_size if part.exists() else 0
        failures = 1 if size > farthest else failures + 1
        farthest = max(farthest, size)
        if failures == _ATTEMPTS:
            raise _Refused(f"{reason} ({failures} times)")
        pause = _BACKOFF_S * 2 ** (failures - 1)
        _log.warning("%s: %s; trying again in %g s", public_address(url), reason, pause)
        time.sleep(pause)

    digest = file_sha256(part)
    if not part.stat().st_size and digest != sha256:
        _discard(part)
        raise _Refused("the server sent nothing")
    with part.open("rb") as file:
        is_page = file.read(512).lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype", b"<html"))
    if is_page or (sha256 and digest != sha256.lower()):
        _discard(part)
        raise _Refused(_WEB_PAGE if is_page else f"its SHA-256 is {digest}, not {sha256}")
    with atomic_path(_beside(path, ".sha256")) as record:  # first, so that no file is without
        record.write_text(f"{digest}  {path.name}\n", encoding="utf-8")
    commit_file(part, path)
    _discard(part)


def _transfer(url: str, part: Path, progress: bool, trusting: bool) -> None:
    """One request: bring `part` to its full length, going on where it ends if the remote file is still the same.

    `trusting`: the whole will be compared with a known hash, so that parts need not say which version they are of.
    """
    note = _beside(part, ".version")
    version, _, length = (
        note.read_text(encoding="utf-8", errors="replace") if note.is_file() and part.is_file() else ""
    ).partition("\n")
    offset = part.stat().st_size if version else 0
    headers = {"Accept-Encoding": "identity"}  # else lengths and offsets count compressed bytes
    if offset:
        headers |= {"Range": f"bytes={offset}-", "If-Range": version}
    try:
        with _Session() as session, session.get(url, headers=headers, stream=True, timeout=_TIMEOUT_S) as response:
            _check_headers(response)
            if response.status_code == 200:  # nothing to go on from, or the server would not
                _discard(part)
                offset = 0
                part.touch()
                total = _total_length(response)
                note.write_text(f"{_version(response)}\n{total or ''}", encoding="utf-8")
            else:
                total = _checked_length(response, offset, version, length, trusting)
            _append(response, part, offset, total, progress)
    except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
        raise _Interrupted(_in_words(error)) from None
    except (requests.RequestException, ValueError) as error:  # urllib3's own errors about addresses are ValueErrors
        raise _Refused(str(error)) from None
    except _Misfit as error:
        _discard(part)
        raise _Interrupted(str(error)) from None
    size = part.stat().st_size
    if total is not None and size != total:
        raise _Interrupted(f"{format_bytes(size)} came of {format_bytes(total)}")


def _in_words(error: requests.RequestException) -> str:
    """The heart of an error that urllib3 and requests have wrapped: "Read timed out." and the like."""
    cause = error.args[0] if error.args else error
    cause = getattr(cause, "reason", cause)
    text = next((argument for argument in getattr(cause, "args", ()) if isinstance(argument, str)), str(cause))
    return re.sub(r"^\w*Connection\w*\(.*?\): ", "", text)


def _append(response: requests.Response, part: Path, offset: int, total: int | None, progress: bool) -> None:
    free = shutil.disk_usage(part.parent).free - LEFT_FREE
    most = min(free + offset, MOST_BYTES)
    if total is not None and total > most:
        raise _Refused(f"it has {format_bytes(total)}, and there is room for {format_bytes(max(most, 0))}")
    bar = tqdm(
        desc=one_line(Path(urlsplit(response.url).path).name, 60),
        total=total,
        initial=offset,
        unit="B",
        unit_scale=True,
        unit_divisor=1024,
        disable=None if progress else True,  # None: only on a terminal
    )
    with bar, part.open("ab") as file:
        for block in response.iter_content(_BLOCK):
            bar.update(file.write(block))
            if file.tell() > (most if total is None else total):
                raise _TooLong


def _check_headers(response: requests.Response) -> None:
    status = response.status_code
    if status == 416:
        raise _Misfit("the remote file is not longer than the part that is here")
    if status not in (200, 206):
        answer = f"the server says {status} {response.reason}"
        raise _Interrupted(answer) if status in _RETRY_STATUS else _Refused(answer)
    if response.headers.get("Content-Type", "").lower().startswith("text/html"):
        raise _Refused(_WEB_PAGE)


def _total_length(response: requests.Response) -> int | None:
    """The length of the whole file, None if the server does not say."""
    length = response.headers.get("Content-Length", "")
    return int(length) if re.fullmatch(r"[0-9]{1,18}", length) else None


def _checked_length(response: requests.Response, offset: int, version: str, length: str, trusting: bool) -> int:
    """The length of the whole file, of which the answer is a part; _Misfit unless it goes on from `offset`.

    It must be of the version that is here, which has this length: two versions in one would be taken for intact.
    """
    match = re.fullmatch(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18})", response.headers.get("Content-Range", ""))
    if not match or int(match[1]) != offset or length not in ("", match[2]):
        raise _Misfit("the server sent another part than the one asked for")
    if _version(response) != version and not (trusting and not _version(response)):
        raise _Misfit("the server does not say that this is a part of the same file")
    return int(match[2])


def _version(response: requests.Response) -> str:
    """Return what names this version of the file, byte for byte (RFC 9110, section 13.1.5); "" if nothing does."""
    tag = response.headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified", "")


def _discard(part: Path) -> None:
    _beside(part, ".version").unlink(missing_ok=True)
    part.unlink(missing_ok=True)
