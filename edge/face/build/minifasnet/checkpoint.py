"""Read the tensors of a PyTorch checkpoint without PyTorch, and without running anything that is in it.

A checkpoint is a pickle, which is a program. Its opcodes are read one by one, and only those are understood
that a table of tensors needs: no other object can be named, made or called. Everything is bounded by the
file's size.

Two containers are read: the stream that PyTorch wrote before 1.6 and the zip archive that it writes since.
Source: torch/serialization.py, `_legacy_save` and `_save`; the opcodes are those of Python's `pickletools`.
"""

import math
import pickletools
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.core.download import DAMAGED_ARCHIVE
from edge.core.errors import ModelError

MAX_BYTES = 256 * 1024 * 1024
"""A larger file is no checkpoint of a network that a door can run."""

MAX_OPCODES = 1_000_000
"""Of one pickle; a network of 500 tensors takes 15,000."""

MAX_DIMENSIONS = 8

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_VERSION = 1001

GLOBALS = {
    "collections OrderedDict": "dict",
    "torch._utils _rebuild_tensor_v2": "tensor",
    "torch FloatStorage": "float32",
    "torch LongStorage": "int64",
}
"""The names that may be spoken, and what they mean here."""

DTYPES: dict[str, np.dtype[Any]] = {"float32": np.dtype("<f4"), "int64": np.dtype("<i8")}


@dataclass(frozen=True, slots=True)
class Named:
    """A name of `GLOBALS` on the stack."""

    meaning: str


@dataclass(frozen=True, slots=True)
class Storage:
    """Values that lie elsewhere in the file, by their key."""

    key: str
    dtype: str
    count: int


@dataclass(frozen=True, slots=True)
class Tensor:
    """A part of a storage, in rows without gaps; `offset` counts values."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]


class Mark:
    """Where a group of values begins on the stack."""


def read_checkpoint(content: bytes) -> dict[str, NDArray[Any]]:
    """Return the tensors of a checkpoint by name: float32 or int64, in their own shapes.

    Raises:
        ModelError: It is no checkpoint, holds anything else than a table of tensors, or is damaged.
    """
    if len(content) > MAX_BYTES:
        raise ModelError(f"the checkpoint is larger than {MAX_BYTES} bytes")
    try:
        if content.startswith(b"PK"):
            return _read_archive(content)
        return _read_stream(content)
    except (ValueError, IndexError, KeyError, TypeError, struct.error, UnicodeError, OverflowError) as error:
        # What pickletools and slices say of damaged bytes.
        raise ModelError(f"the checkpoint is damaged: {str(error)[:100]}") from None


def _read_stream(content: bytes) -> dict[str, NDArray[Any]]:
    stream = BytesIO(content)
    if _unpickle(stream) != LEGACY_MAGIC or _unpickle(stream) != LEGACY_VERSION:
        raise ModelError("the file is no PyTorch checkpoint")
    system = _unpickle(stream)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise ModelError("the checkpoint was not written on a little-endian machine")
    tensors, keys = _table(_unpickle(stream)), _unpickle(stream)
    declared = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    named = isinstance(keys, list) and all(isinstance(key, str) for key in keys)
    if not named or sorted(keys) != sorted(declared):
        raise ModelError("the checkpoint's storages are not those of its tensors")
    values = {}
    for key in keys:
        storage = declared[key]
        (count,) = struct.unpack("<q", stream.read(8))
        if count != storage.count:
            raise ModelError("a storage of the checkpoint has another size than its tensors say")
        values[key] = _values(storage, stream.read(_size(storage)))
    if stream.read(1):
        raise ModelError("something follows the checkpoint's last storage")
    return {name: _part(tensor, values[tensor.storage.key]) for name, tensor in tensors.items()}


def _read_archive(content: bytes) -> dict[str, NDArray[Any]]:
    try:
        with zipfile.ZipFile(BytesIO(content)) as archive:
            names = [
                name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")
            ]
            if len(names) != 1:
                raise ModelError("the archive is no PyTorch checkpoint")
            folder = names[0].removesuffix("data.pkl")
            if f"{folder}byteorder" in archive.namelist():
                if _member(archive, f"{folder}byteorder", 16) != b"little":
                    raise ModelError("the checkpoint was not written on a little-endian machine")
            tensors = _table(_unpickle(BytesIO(_member(archive, names[0], len(content)))))
            declared = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
            values = {
                key: _values(storage, _member(archive, f"{folder}data/{key}", _size(storage)))
                for key, storage in declared.items()
            }
    except DAMAGED_ARCHIVE as error:
        raise ModelError(f"the checkpoint is a damaged archive: {error}") from None
    return {name: _part(tensor, values[tensor.storage.key]) for name, tensor in tensors.items()}


def _member(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    """Return a member of the archive that is stored as it is: PyTorch compresses nothing."""
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED or info.file_size > most:
        raise ModelError("a member of the checkpoint is compressed or too large")
    return archive.read(info)


def _size(storage: Storage) -> int:
    return storage.count * DTYPES[storage.dtype].itemsize


def _values(storage: Storage, content: bytes) -> NDArray[Any]:
    if len(content) != _size(storage):
        raise ModelError("a storage of the checkpoint is not whole")
    return np.frombuffer(content, DTYPES[storage.dtype])


def _part(tensor: Tensor, values: NDArray[Any]) -> NDArray[Any]:
    part: NDArray[Any] = values[tensor.offset : tensor.offset + math.prod(tensor.shape)]
    return part.reshape(tensor.shape)


def _table(found: object) -> dict[str, Tensor]:
    if not isinstance(found, dict) or not found:
        raise ModelError("the checkpoint is no table of tensors")
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise ModelError("the checkpoint holds something else than named tensors")
    storages: dict[str, Storage] = {}
    for tensor in found.values():
        if storages.setdefault(tensor.storage.key, tensor.storage) != tensor.storage:
            raise ModelError("two tensors of the checkpoint disagree about their storage")
    return found


class _Machine:
    """A stack and a memo, and what each opcode that is understood does to them."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.actions: dict[str, Callable[[Any], None]] = {
            "MARK": lambda _: self.stack.append(Mark),
            "NONE": lambda _: self.stack.append(None),
            "NEWTRUE": lambda _: self.stack.append(True),
            "NEWFALSE": lambda _: self.stack.append(False),
            **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE"), self.stack.append),
            "EMPTY_TUPLE": lambda _: self.stack.append(()),
            "EMPTY_LIST": lambda _: self.stack.append([]),
            "EMPTY_DICT": lambda _: self.stack.append({}),
            "TUPLE": lambda _: self.stack.append(tuple(self._group())),
            "TUPLE1": lambda _: self._tuple(1),
            "TUPLE2": lambda _: self._tuple(2),
            "TUPLE3": lambda _: self._tuple(3),
            "APPEND": lambda _: self._append([self._pop()]),
            "APPENDS": lambda _: self._append(self._group()),
            "SETITEM": lambda _: self._set([self._pop(2), self._pop()]),
            "SETITEMS": lambda _: self._set(self._group()),
            "BINPUT": self._put,
            "LONG_BINPUT": self._put,
            "BINGET": lambda key: self.stack.append(self.memo[key]),
            "LONG_BINGET": lambda key: self.stack.append(self.memo[key]),
            "GLOBAL": self._name,
            "BINPERSID": lambda _: self.stack.append(_storage(self._pop())),
            "REDUCE": lambda _: self._make(),
            "BUILD": lambda _: self._describe(),
        }

    def _pop(self, depth: int = 1) -> Any:
        """Take the value `depth` places below the top."""
        value = self.stack.pop(-depth)
        if value is Mark:
            raise ModelError("the checkpoint's pickle is out of order")
        return value

    def _tuple(self, length: int) -> None:
        values = [self._pop() for _ in range(length)]
        self.stack.append(tuple(reversed(values)))

    def _group(self) -> list[Any]:
        """Take everything above the last mark."""
        at = len(self.stack) - 1
        while at >= 0 and self.stack[at] is not Mark:
            at -= 1
        if at < 0:
            raise ModelError("the checkpoint's pickle is out of order")
        group = self.stack[at + 1 :]
        del self.stack[at:]
        return group

    def _append(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list):
            raise ModelError("the checkpoint appends to something that is no list")
        target.extend(values)

    def _set(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or len(values) % 2:
            raise ModelError("the checkpoint sets items of something that is no table")
        for key, value in zip(values[::2], values[1::2], strict=True):
            if not isinstance(key, str) or key in target:
                raise ModelError("a table of the checkpoint has a key twice, or one that is no text")
            target[key] = value

    def _put(self, key: int) -> None:
        self.memo[key] = self.stack[-1]

    def _name(self, name: str) -> None:
        if name not in GLOBALS:
            raise ModelError(f"the checkpoint names {name[:60]!r}, which no table of tensors needs")
        self.stack.append(Named(GLOBALS[name]))

    def _make(self) -> None:
        arguments, made = self._pop(), self._pop()
        if made == Named("dict") and arguments == ():
            self.stack.append({})
        elif made == Named("tensor") and isinstance(arguments, tuple):
            self.stack.append(_tensor(arguments))
        else:
            raise ModelError("the checkpoint calls something that no table of tensors needs")

    def _describe(self) -> None:
        """Drop what describes a table: the versions of its layers."""
        state = self._pop()
        if not isinstance(state, dict) or not isinstance(self.stack[-1], dict):
            raise ModelError("the checkpoint changes an object that is no table")


def _unpickle(stream: BytesIO) -> Any:
    """Return the value of the pickle that begins here, and leave the stream behind it."""
    machine = _Machine()
    for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        if count > MAX_OPCODES:
            raise ModelError("the checkpoint's pickle is longer than any of a network")
        if opcode.name == "STOP":
            break
        if opcode.name == "PROTO":
            continue
        if opcode.name not in machine.actions:
            raise ModelError(f"the checkpoint's pickle uses {opcode.name}, which no table of tensors needs")
        machine.actions[opcode.name](argument)
    if len(machine.stack) != 1 or machine.stack[0] is Mark:
        raise ModelError("the checkpoint's pickle is out of order")
    return machine.stack[0]


def _storage(described: object) -> Storage:
    match described:
        case ("storage", Named(dtype), str(key), str(), int(count), *_) if dtype in DTYPES:
            if 0 < count <= MAX_BYTES // DTYPES[dtype].itemsize and key.isdigit() and key.isascii():
                return Storage(key, dtype, count)
    raise ModelError("the checkpoint describes a storage that is none")


def _tensor(arguments: tuple[Any, ...]) -> Tensor:
    match arguments:
        case (Storage() as storage, int(offset), tuple(shape), tuple(strides), bool(), dict(), *_):
            whole = all(type(side) is int and side > 0 for side in shape) and len(shape) <= MAX_DIMENSIONS
            if whole and offset >= 0 and len(strides) == len(shape) and _in_rows(shape, strides):
                if offset + math.prod(shape) <= storage.count:
                    return Tensor(storage, offset, shape)
    raise ModelError("the checkpoint describes a tensor that is none")


def _in_rows(shape: tuple[int, ...], strides: tuple[Any, ...]) -> bool:
    """Say whether the values lie one after the other."""
    step = 1
    for side, stride in zip(reversed(shape), reversed(strides), strict=True):
        if side > 1 and stride != step:
            return False
        step *= side
    return True
