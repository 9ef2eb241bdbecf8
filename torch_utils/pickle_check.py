"""What a pickle would build, found out from its opcodes before anything is built: its size, depth and globals.

A few bytes of pickle can ask for gigabytes (an index into the memo, a length), for years (tuples that double are hashed
in full) or for a stack that the interpreter does not have (nesting). Nothing of that is in a pickle of weights.
"""

from __future__ import annotations

import io
import mmap
import pickletools
from collections.abc import Container
from typing import Any, BinaryIO, cast

from dnnlib.util import one_line

_MOST_DEPTH = 200  # published snapshots: 31
_MOST_INTEGER_BITS = 64
_SHARING = 4  # how many times over, on average, an object may be part of the whole; published: none is
_FREE_SIZE = 1 << 14  # objects of a small pickle, however shared
_MARK = "mark"
_TORCH_PROTOCOL = 2
_REFUSED = {
    *("PERSID", "INST", "OBJ", "EXT1", "EXT2", "EXT4", "LONG4", "FROZENSET", "BYTEARRAY8"),
    *("NEXT_BUFFER", "READONLY_BUFFER", "DUP", "INT", "LONG", "STRING", "UNICODE", "FLOAT", "PUT", "GET"),
}
_PUTS, _GETS = {"BINPUT", "LONG_BINPUT", "MEMOIZE"}, {"BINGET", "LONG_BINGET"}
_FILLS = {"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"}


class PickleError(ValueError):
    """A pickle that is damaged, or is none of weights: what is wrong, without the name of the file."""


class _Node:
    """An object on the unpickler's stack.

    Attributes:
        depth: of its nesting. size: how many objects it is when every one of its parts is counted where it stands.
        part: whether it is a part of another object, and may not grow any more.
    """

    __slots__ = ("depth", "part", "size")

    def __init__(self, parts: list[_Node]) -> None:
        self.depth, self.size, self.part = 1, 1, False
        self.add(parts)

    def add(self, parts: list[_Node]) -> None:
        for node in parts:
            node.part = True
            self.size += node.size
            self.depth = max(self.depth, node.depth + 1)


_LEAF = _Node([])  # numbers, texts, bytes, globals


def check_pickle(
    data: BinaryIO | mmap.mmap,
    most_opcodes: int,
    *,
    names: Container[str] | None = None,
    most_integer: int | None = None,
) -> None:
    """Read the opcodes up to STOP; raise PickleError where they would build what no file of weights holds.

    What passes can be built in time and memory proportional to its bytes: its objects form a tree of bounded depth
    whose parts are shared but moderately, and no length or index in it exceeds what is there.

    Args:
        data: where to read from, up to its end at most; left behind STOP.
        most_opcodes: more are refused.
        names: the globals that it may ask for, as "module.name"; None: any, somebody else looks at them.
        most_integer: greater numbers are refused.
    """
    try:
        _Check(data, most_opcodes, names, most_integer).run()
    except PickleError:
        raise
    except (ValueError, IndexError, KeyError, AttributeError, OverflowError, MemoryError) as error:
        raise PickleError(f"damaged pickle ({one_line(error, 100) or type(error).__name__})") from None


class _Check:
    """An unpickler that builds nothing but `_Node`s."""

    def __init__(
        self, data: BinaryIO | mmap.mmap, most_opcodes: int, names: Container[str] | None, most_integer: int | None
    ) -> None:
        self.data, self.most_opcodes, self.names, self.most_integer = data, most_opcodes, names, most_integer
        start = data.tell()
        self.end = data.seek(0, io.SEEK_END) or data.tell()  # mmap tells nothing when it seeks, before Python 3.13
        data.seek(start)
        self.stack: list[Any] = []  # of _Node and _MARK
        self.memo: dict[int, _Node] = {}
        self.count = 0

    def run(self) -> None:
        for opcode, argument, _ in pickletools.genops(cast(BinaryIO, self.data)):  # it only reads
            self.count += 1
            if self.count > self.most_opcodes:
                raise PickleError(f"more than {self.most_opcodes} opcodes")
            self._step(opcode, argument)

    def _step(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        name, stack = opcode.name, self.stack
        if name in _GETS:
            stack.append(self.memo[argument])
        elif name in _PUTS:
            index = len(self.memo) if name == "MEMOIZE" else argument
            if index > self.count:
                raise PickleError(f"the memo has no place {index}")
            self.memo[index] = stack[-1]
        elif name == "FRAME":
            if argument > self.end - self.data.tell():
                raise PickleError("a frame longer than the file")
        elif name in _REFUSED or (name == "PROTO" and self.names is not None and argument != _TORCH_PROTOCOL):
            raise PickleError(f"opcode {name}, which no file of weights contains")
        elif not opcode.stack_before and len(opcode.stack_after) == 1:
            self._push(name, argument)
        else:
            self._combine(opcode)

    def _push(self, name: str, argument: Any) -> None:
        if name == "GLOBAL" and self.names is not None and argument.replace(" ", ".", 1) not in self.names:
            raise PickleError(f"asks for {one_line(argument, 100)!r}, which is no part of such files")
        if isinstance(argument, int):
            if argument.bit_length() > _MOST_INTEGER_BITS:
                raise PickleError(f"an integer of more than {_MOST_INTEGER_BITS} bits")
            if self.most_integer is not None and argument > self.most_integer:
                raise PickleError(f"a length of {argument}, more than there is")
        builds = name in ("EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET")
        self.stack.append(_MARK if name == "MARK" else _Node([]) if builds else _LEAF)

    def _combine(self, opcode: pickletools.OpcodeInfo) -> None:
        """Take from the stack what the opcode takes, and put back what it makes of it."""
        name, stack = opcode.name, self.stack
        if name == "STACK_GLOBAL" and self.names is not None:
            raise PickleError("opcode STACK_GLOBAL, which no such file contains")
        before = opcode.stack_before
        parts: list[_Node] = []
        if pickletools.markobject in before:
            while (top := stack.pop()) is not _MARK:
                parts.append(top)
            before = before[: before.index(pickletools.markobject)]
        for _ in before:
            parts.append(stack.pop())
        if _MARK in parts:
            raise PickleError("a mark where an object belongs")
        if not opcode.stack_after:
            return
        if name in _FILLS:
            node = parts.pop()
            if node.part or node is _LEAF or node in parts:
                raise PickleError("an object that changes after it became a part of another, or of itself")
            node.add(parts)
        else:
            node = _Node(parts)
        if node.depth > _MOST_DEPTH:
            raise PickleError(f"objects nested more than {_MOST_DEPTH} deep")
        if node.size > _SHARING * self.count + _FREE_SIZE:
            raise PickleError("the same objects over and over inside each other")
        stack.append(node)
