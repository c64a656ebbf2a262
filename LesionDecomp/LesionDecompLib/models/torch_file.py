"""Files that ``torch.save`` wrote: checkpoints, and weights of bundles of format 1.

``torch.load(weights_only=True)`` makes no call that such a file names. But it takes memory at will: from an
archive that is compressed, from the few classes it knows, from nested tuples whose hash never ends. What no file of
tensors needs is therefore refused first, by the archive's directory and the names and operations in its pickle.

Operations: Python's ``pickletools``. Layout: https://pytorch.org/docs/stable/notes/serialization.html
"""

from __future__ import annotations

import pickletools
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    import torch

MAX_PICKLE_BYTES = 1 << 24
NAMES = {"torch._utils _rebuild_tensor_v2", "collections OrderedDict"} | {
    f"torch {kind}Storage" for kind in ("Float", "Half", "BFloat16", "Double", "Long", "Int", "Short", "Char", "Byte")
}
# After these the pickle's memory gets nothing that holds other values and can be a key.
PLAIN = ("GLOBAL", "BINUNICODE", "EMPTY_DICT", "EMPTY_LIST", "REDUCE", "BUILD")
MOST_REPEATED = 24  # tuples, for each of which the time to hash them may double


class NotTensorsError(ValueError):
    """Why a file is not one that ``torch.save`` makes of tensors, numbers, texts, lists and dictionaries."""


def load_torch_file(file: str | Path | BinaryIO) -> Any:
    """Load what ``torch.save`` wrote, onto the CPU.

    :param file: a path, or a binary stream that can seek.
    :raises NotTensorsError: another format, compressed or doubled entries, a name that no file of tensors needs,
        tensors that reach beyond their numbers, damage.
    """
    import torch  # slow to import

    try:
        with zipfile.ZipFile(file) as archive:
            records = _checked_records(archive)
        if not isinstance(file, (str, Path)):
            file.seek(0)
        content = torch.load(file, map_location="cpu", weights_only=True)
        _check_tensors(content, records)
        return content
    except NotTensorsError:
        raise
    except Exception as error:  # torch and zipfile raise a dozen kinds here; all mean the same to the user
        reason = str(error).splitlines()[0][:100] if str(error) else type(error).__name__
        raise NotTensorsError(f"no file of tensors ({reason})") from error


def _checked_records(archive: zipfile.ZipFile) -> Counter[int]:
    """Check the archive and its pickle; return how many records of numbers of each length, bytes, there are."""
    entries = archive.infolist()
    top = entries[0].filename.partition("/")[0] if entries else ""
    names = {entry.filename: entry for entry in entries}
    for entry in entries:
        folder, _, name = entry.filename.partition("/")
        if folder != top or not name or ".." in name.split("/"):
            raise NotTensorsError(f"an entry named {entry.filename[:60]!r}")
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
            raise NotTensorsError("compressed entries")
    # Entries that are stored as they are and don't overlap are together shorter than the file.
    length = archive.fp.seek(0, 2) if archive.fp else 0
    if len(names) < len(entries) or sum(entry.file_size for entry in entries) > length:
        raise NotTensorsError("two entries in one place")
    pickle = names.get(f"{top}/data.pkl")
    if pickle is None or pickle.file_size > MAX_PICKLE_BYTES:
        raise NotTensorsError("no data.pkl, or one too long")
    if archive.testzip() is not None:  # torch compares no checksums
        raise NotTensorsError("a damaged entry")
    _check_pickle(archive.read(pickle))
    return Counter(entry.file_size for name, entry in names.items() if name.startswith(f"{top}/data/"))


def _check_pickle(pickle: bytes) -> None:
    before, nested, repeated = "", set[str](), 0
    for operation, argument, _ in pickletools.genops(pickle):
        name = operation.name
        if before == "" and (name, argument) != ("PROTO", 2):
            raise NotTensorsError("a pickle that torch did not write")
        if name == "GLOBAL" and str(argument) not in NAMES:
            raise NotTensorsError(f"the name {str(argument)[:60]!r}, which no file of tensors needs")
        if name in ("BINPUT", "LONG_BINPUT") and before not in PLAIN:
            nested.add(str(argument))
        repeated += name in ("BINGET", "LONG_BINGET") and str(argument) in nested
        if repeated > MOST_REPEATED:
            raise NotTensorsError("more repeated tuples than a file of tensors has")
        before = name


def _check_tensors(content: Any, records: Counter[int]) -> None:
    storages: dict[int, int] = {}
    for tensor in _tensors(content):
        storage = tensor.untyped_storage()
        if tensor.numel() * tensor.element_size() > storage.nbytes():
            raise NotTensorsError("a tensor that repeats its numbers")
        storages[storage._cdata] = storage.nbytes()
    if not Counter(storages.values()) <= records:
        raise NotTensorsError("a storage of another length than its numbers")


def _tensors(content: Any) -> Iterator[torch.Tensor]:
    import torch  # slow to import

    waiting, seen = [content], set[int]()
    while waiting:
        value = waiting.pop()
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (dict, list, tuple)) and id(value) not in seen:
            seen.add(id(value))
            waiting += value.values() if isinstance(value, dict) else value
