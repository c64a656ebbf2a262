"""Files that ``torch.save`` wrote, read as data.

Such a file is a zip archive of raw numbers and one small pickle that says which of them make up which tensor. Python's
and torch's own readers turn a pickle into calls, and believe the sizes it names. Here its few operations are followed
by hand: they can make numbers, texts, lists, dictionaries and tensors, and anything else is refused. Nothing of the
file is ever executed, and no more memory is taken than the file is long.

Operations: Python's ``pickletools``. Layout: https://pytorch.org/docs/stable/notes/serialization.html
"""

from __future__ import annotations

import pickletools
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    import torch

MAX_PICKLE_BYTES = 1 << 24
# Name of a storage's class -> name of torch's type.
STORAGES = {
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "DoubleStorage": "float64",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
}
TENSOR, DICTIONARY = "torch._utils _rebuild_tensor_v2", "collections OrderedDict"
CONSTANTS: dict[str, Callable[[], Any]] = {
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
}
LITERALS = frozenset(("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE"))
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
ERRORS = (OSError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error, ValueError)


class NotTensorsError(ValueError):
    """Why a file is not one that ``torch.save`` makes of tensors, numbers, texts, lists and dictionaries."""


def read_torch_file(file: str | Path | BinaryIO) -> Any:
    """Read what ``torch.save`` wrote, onto the CPU.

    :param file: a path, or a binary stream that can seek.
    :return: dictionaries, lists, tuples, numbers, texts and tensors; attributes of an ``OrderedDict`` are left out.
    :raises NotTensorsError: another format, compressed or overlapping entries, an operation or a name that no file of
        tensors needs, tensors that reach beyond their numbers, damage.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            records = _records(archive)
            pickle = _bytes(archive, records, "data.pkl")
            if records.get("byteorder") and bytes(_bytes(archive, records, "byteorder")) != sys.byteorder.encode():
                raise NotTensorsError("numbers in the byte order of another machine")
            return _Follower(lambda key: _bytes(archive, records, f"data/{key}")).follow(bytes(pickle))
    except NotTensorsError:
        raise
    except (*ERRORS, TypeError, IndexError, KeyError, AttributeError, OverflowError) as error:
        raise NotTensorsError(f"no file of tensors ({str(error)[:100] or type(error).__name__})") from error


def _records(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The entries by their names below the one top folder."""
    entries = archive.infolist()
    top = entries[0].filename.partition("/")[0] if entries else ""
    records: dict[str, zipfile.ZipInfo] = {}
    for entry in entries:
        folder, _, name = entry.filename.partition("/")
        if folder != top or not name or ".." in name.split("/"):
            raise NotTensorsError(f"an entry named {entry.filename[:60]!r}")
        if name in records:
            raise NotTensorsError(f"two entries named {name[:60]!r}")
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
            raise NotTensorsError("compressed entries")
        records[name] = entry
    # Entries that are stored as they are and don't overlap are together shorter than the file.
    file = archive.fp
    if file is None or sum(entry.file_size for entry in entries) > file.seek(0, 2):
        raise NotTensorsError("entries that claim more bytes than the file has")
    if "data.pkl" not in records or records["data.pkl"].file_size > MAX_PICKLE_BYTES:
        raise NotTensorsError("no data.pkl, or one too long")
    return records


def _bytes(archive: zipfile.ZipFile, records: dict[str, zipfile.ZipInfo], name: str) -> bytearray:
    if name not in records:
        raise NotTensorsError(f"no numbers in {name[:60]!r}")
    data = bytearray(records[name].file_size)
    with archive.open(records[name]) as stream:  # compares the checksum at the end
        if stream.readinto(data) != len(data) or stream.read(1):  # type: ignore[attr-defined]
            raise NotTensorsError(f"the truncated entry {name[:60]!r}")
    return data


class _Name(str):
    """The name of a class or function, which is never looked up."""

    __slots__ = ()


class _Follower:
    """Follows the operations of one pickle.

    :param load: from a storage's key to its bytes.
    """

    def __init__(self, load: Callable[[str], bytearray]) -> None:
        self._load = load
        self._storages: dict[tuple[str, str], torch.Tensor] = {}
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def follow(self, pickle: bytes) -> Any:
        for operation, argument, _ in pickletools.genops(pickle):
            name = operation.name
            if name == "STOP":
                break
            self._apply(name, argument)
        if len(self._stack) != 1 or isinstance(self._stack[0], _Name):
            raise NotTensorsError("a pickle that ends in the middle")
        return self._stack[0]

    def _apply(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name in LITERALS:
            stack.append(argument)
        elif name in CONSTANTS:
            stack.append(CONSTANTS[name]())
        elif name in ("BINPUT", "LONG_BINPUT"):
            self._memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self._memo[argument])
        elif name == "MARK":
            self._marks.append(len(stack))
        elif name == "TUPLE":
            stack.append(tuple(self._since_mark()))
        elif name in TUPLES:
            stack[-TUPLES[name] :] = [tuple(stack[-TUPLES[name] :])]
        elif name in ("SETITEM", "SETITEMS"):
            pairs = self._since_mark() if name == "SETITEMS" else [stack.pop(), stack.pop()][::-1]
            self._fill(pairs[::2], pairs[1::2])
        elif name in ("APPEND", "APPENDS"):
            items = self._since_mark() if name == "APPENDS" else [stack.pop()]
            if type(stack[-1]) is not list:
                raise NotTensorsError("items of something that is no list")
            stack[-1].extend(items)
        elif name == "GLOBAL":
            if argument not in (TENSOR, DICTIONARY) and argument.removeprefix("torch ") not in STORAGES:
                raise NotTensorsError(f"the name {argument[:60]!r}, which no file of tensors needs")
            stack.append(_Name(argument))
        elif name == "BINPERSID":
            stack.append(self._storage(stack.pop()))
        elif name == "REDUCE":
            arguments, called = stack.pop(), stack.pop()
            stack.append(self._made(called, arguments))
        elif name == "BUILD":
            stack.pop()  # attributes of a state dict: versions of its layers
        elif name != "PROTO":
            raise NotTensorsError(f"the operation {name}, which no file of tensors needs")

    def _since_mark(self) -> list[Any]:
        mark = self._marks.pop()
        items = self._stack[mark:]
        del self._stack[mark:]
        return items

    def _fill(self, keys: list[Any], values: list[Any]) -> None:
        # Keys of other types could take forever to hash.
        if type(self._stack[-1]) is not dict or not all(type(key) in (str, int) for key in keys):
            raise NotTensorsError("keys that are no text or number")
        self._stack[-1].update(zip(keys, values, strict=True))

    def _storage(self, described: Any) -> torch.Tensor:
        import torch

        kind, name, key, _, count = described
        if kind != "storage" or not isinstance(name, _Name) or type(key) is not str or type(count) is not int:
            raise NotTensorsError("a reference to something that is no storage")
        if (name, key) not in self._storages:
            data = self._load(key)
            dtype = getattr(torch, STORAGES[name.removeprefix("torch ")])
            if count < 0 or len(data) != count * dtype.itemsize:
                raise NotTensorsError(f"a storage of {count} numbers in {len(data)} bytes")
            self._storages[name, key] = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
        return self._storages[name, key]

    def _made(self, called: Any, arguments: Any) -> Any:
        if not isinstance(called, _Name) or type(arguments) is not tuple:
            raise NotTensorsError("a call of something that is no name")
        if called == DICTIONARY and arguments == ():
            return {}
        if called != TENSOR:
            raise NotTensorsError(f"a call of '{called}' with arguments")
        return _tensor(*arguments[:4])


def _tensor(storage: torch.Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> torch.Tensor:
    import torch

    numbers = (offset, *size, *stride)
    if not isinstance(storage, torch.Tensor) or len(size) != len(stride) or len(size) > 8:
        raise NotTensorsError("a tensor without storage, size or strides")
    if not all(type(number) is int and 0 <= number < 2**40 for number in numbers):
        raise NotTensorsError("a tensor with an impossible size or stride")
    count, last = 1, offset
    for length, step in zip(size, stride, strict=True):
        count *= length
        last += (length - 1) * step
    if count and (last >= storage.numel() or count > storage.numel()):
        raise NotTensorsError("a tensor that reaches beyond its storage")
    return storage.as_strided(size, stride, min(offset, storage.numel()))
