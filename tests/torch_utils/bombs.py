"""Pickles of a few bytes that ask for gigabytes, for years, or for a stack that nobody has."""

from __future__ import annotations

import io
import pickle
import struct

import torch

_HEAD = b"\x80\x04"


def _doubled(depth: int) -> bytes:
    """A tuple of two times a tuple of two times ..., as a key of a dict, so that it is hashed."""
    return b")q\x000" + b"h\x00h\x00\x86q\x000" * depth + b"h\x00"


def _storage(numel: int) -> bytes:
    """A storage in torch's old format that says it has so many bytes."""
    file = io.BytesIO()
    bytes_ = torch.storage.TypedStorage(wrap_storage=torch.UntypedStorage(7), dtype=torch.uint8, _internal=True)
    torch.save(bytes_, file, _use_new_zipfile_serialization=False)
    return file.getvalue().replace(b"K\x07N", b"\x8a\x08" + struct.pack("<q", numel) + b"N")


def _call(module: str, name: str, arguments: bytes) -> bytes:
    return f"c{module}\n{name}\n".encode() + arguments + b"R"


def _bytes(data: bytes) -> bytes:
    return b"B" + struct.pack("<I", len(data)) + data


def bombs() -> dict[str, bytes]:
    """Each by the name of what it does."""
    zipped = io.BytesIO()
    torch.save(torch.zeros(4), zipped)
    load = ("torch.storage", "_load_from_bytes")
    state = b"}(" + b"".join(b"J" + struct.pack("<i", k) + b"K\x00" for k in range(3000)) + b"u"
    return {
        "memo": _HEAD + b"}r" + struct.pack("<I", 1 << 31) + b".",
        "memo in text": _HEAD + b"}p4000000000\n.",
        "length of bytes": _HEAD + b"\x8e" + struct.pack("<q", 1 << 40) + b"abc.",
        "length of text": _HEAD + b"\x8d" + struct.pack("<q", 1 << 62) + b"abc.",
        "length of an array": b"\x80\x05\x96" + struct.pack("<q", 1 << 33) + b"abc.",
        "frame": _HEAD + b"\x95" + struct.pack("<q", 1 << 33) + b"}.",
        "nested tuples": _HEAD + b"}" + b")" + b"\x85" * 200_000 + b"K\x00s.",
        "nested lists": _HEAD + b"]" * 200_000 + b"a" * 199_999 + b".",
        "nested dicts": _HEAD + b"}" + b"K\x00}" * 100_000 + b"s" * 100_000 + b".",
        "lists nested from outside": _HEAD
        + b"]q\x00]q\x01"
        + b"h\x00h\x01a0]q\x02h\x01h\x02a0h\x02q\x01" * 30_000
        + b"h\x00.",
        "doubled": _HEAD + b"}" + _doubled(60) + b"K\x00s.",
        "marks": _HEAD + b"(" * 300_000 + b".",
        "an integer": _HEAD + b"\x8b" + struct.pack("<i", 900_000) + b"\x7f" * 900_000 + b".",
        "digits": _HEAD + b"I" + b"9" * 900_000 + b"\n.",
        "opcodes": _HEAD + b"N0" * 450_000 + b"}.",
        "a list in itself": _HEAD + b"]q\x00h\x00a.",
        "copies": _HEAD
        + state
        + b"q\x00"
        + b"ccollections\nOrderedDict\nq\x01"
        + b"("
        + b"h\x01h\x00\x85R" * 100_000
        + b"l.",
        "storage": _HEAD + b"}K\x00" + _call(*load, _bytes(_storage(1 << 40)) + b"\x85") + b"s.",
        "storage of the new format": _HEAD + b"}K\x00" + _call(*load, _bytes(zipped.getvalue()) + b"\x85") + b"s.",
        "storages over and over": _HEAD
        + _bytes(_storage(7) + bytes(100_000))
        + b"\x85q\x00ctorch.storage\n_load_from_bytes\nq\x01"
        + b"]("
        + b"h\x01h\x00R" * 50_000
        + b"e.",
        "a storage that hides a bomb": _HEAD
        + b"}K\x00"
        + _call(*load, _bytes(pickle.dumps(torch.serialization.MAGIC_NUMBER, 2) + _HEAD + b"]" * 9000 + b".") + b"\x85")
        + b"s.",
    }
