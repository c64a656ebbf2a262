"""Weights are data: what torch.save makes of tensors is read bit for bit, and everything else is refused unexecuted."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable

import pytest
import torch
from LesionDecompLib.models.torch_file import NotTensorsError, load_torch_file

STATE = {"a": torch.arange(6, dtype=torch.float16).reshape(2, 3), "n": torch.tensor(3), "none": torch.zeros(0, 4)}


def saved(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def repacked(data: bytes, change: Callable[[dict[str, bytes]], None], method: int = zipfile.ZIP_STORED) -> io.BytesIO:
    """The archive with its entries changed, checksums right again."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    change(entries)
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    target.seek(0)
    return target


def with_pickle(data: bytes, old: bytes, new: bytes) -> io.BytesIO:
    def change(entries: dict[str, bytes]) -> None:
        assert old in entries["archive/data.pkl"]
        entries["archive/data.pkl"] = entries["archive/data.pkl"].replace(old, new, 1)

    return repacked(data, change)


def same(a: object, b: object) -> bool:
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
    return type(a) is type(b) and a == b


def test_state_dicts_optimizers_and_plain_values_come_back_as_torch_reads_them():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, betas=(0.5, 0.9))
    network(torch.rand(2, 1, 8, 8)).sum().backward()
    optimizer.step()
    content = {
        "modules": {"net": network.state_dict()},
        "optimizers": [optimizer.state_dict()],
        "step": 70_000,
        "seed": 2**40,
        "view": torch.arange(12, dtype=torch.float64).reshape(3, 4).t()[1:],
        **STATE,
    }
    data = saved(content)
    assert same(load_torch_file(io.BytesIO(data)), torch.load(io.BytesIO(data), weights_only=True))


class Call:
    """A pickled call of ``function``, as a hostile file would hold."""

    def __init__(self, function: Callable, *arguments: object) -> None:
        self._call = function, arguments

    def __reduce__(self):
        return self._call


# A dictionary with one key: a pair of pairs of pairs ..., 60 levels deep. Hashing it would not end.
HASH_BOMB = b"\x80\x02})" + b"q\x00h\x00\x86" * 60 + b"K\x01s."


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_no_call_in_a_pickle_is_made(tmp_path, protocol):
    target = str(tmp_path / "made")
    plain = pickle.dumps({"a": Call(open, target, "w")}, protocol)
    inside = repacked(saved(STATE), lambda entries: entries.update({"archive/data.pkl": plain}))
    for file in (io.BytesIO(plain), inside):
        with pytest.raises(NotTensorsError):
            load_torch_file(file)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "reported"),
    [
        (Call(torch.zeros, 10**9), "the name"),
        ({"a": Call(bytearray, 10**10)}, "the name"),
        (HASH_BOMB, "repeated tuples"),
    ],
    ids=["call", "memory", "hash"],
)
def test_what_no_file_of_weights_needs_is_refused(content, reported):
    data = content if isinstance(content, bytes) else pickle.dumps(content, 2)
    file = repacked(saved(STATE), lambda entries: entries.update({"archive/data.pkl": data}))
    with pytest.raises(NotTensorsError, match=reported):
        load_torch_file(file)


def test_lists_that_hold_a_list_twice_are_walked_once():
    content: list = []
    for _ in range(60):
        content = [content, content]
    assert load_torch_file(io.BytesIO(saved(content)))[0][1][0] is not None


def test_a_compressed_archive_is_refused_before_it_is_unpacked():
    zeros = saved({"a": torch.zeros(10**6)})
    packed = repacked(zeros, lambda entries: None, zipfile.ZIP_DEFLATED)
    assert len(packed.getvalue()) < len(zeros) / 100
    with pytest.raises(NotTensorsError, match="compressed"):
        load_torch_file(packed)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"K\x06tq", b"J\xff\xff\xff\x3ftq"),  # more numbers in the storage than its entry has
        (b"K\x06tq", b"K\x07tq"),
        (b"QK\x00K\x02K\x03\x86", b"QK\x01K\x02K\x03\x86"),  # begins one number later, ends behind the storage
        (b"K\x03K\x01\x86", b"K\x00K\x00\x86"),  # reads the same number again and again
        (b"K\x02K\x03\x86", b"J\xff\xff\xff\x3fK\x03\x86"),
        (b"K\x02K\x03\x86", b"J\xff\xff\xff\xffK\x03\x86"),
        (b"K\x02K\x03\x86", b"K\x02K\x03K\x01\x87"),  # three sizes, two strides
    ],
)
def test_a_tensor_that_lies_about_its_numbers_is_refused(old, new):
    data = saved({"a": torch.arange(6, dtype=torch.float16).reshape(2, 3)})
    if old == b"K\x03K\x01\x86":
        changed = with_pickle(data, b"K\x02K\x03\x86", b"J\xff\xff\xff\x0fK\x03\x86")
        changed = with_pickle(changed.getvalue(), old, new)
    else:
        changed = with_pickle(data, old, new)
    with pytest.raises(NotTensorsError):
        load_torch_file(changed)


@pytest.mark.parametrize("name", ["../archive/data/0", "archive/../data/0", "/archive/data/0", "other/data/0"])
def test_names_that_leave_the_archive_s_folder_are_refused(name):
    with pytest.raises(NotTensorsError, match="an entry named"):
        load_torch_file(repacked(saved(STATE), lambda entries: entries.update({name: b"12"})))


def test_entries_that_claim_the_same_bytes_twice_are_refused():
    data = saved(STATE)
    with pytest.warns(UserWarning, match="Duplicate name"):
        doubled = io.BytesIO(data)
        with zipfile.ZipFile(doubled, "a") as archive:
            archive.writestr("archive/data/0", bytes(12))
    with pytest.raises(NotTensorsError, match="two entries"):
        load_torch_file(doubled)


def test_every_flipped_bit_is_noticed_or_changes_nothing():
    data = saved({"a": torch.arange(6, dtype=torch.float16)})
    expected = torch.load(io.BytesIO(data), weights_only=True)
    refused = 0
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 1 << position % 8
        try:
            assert same(load_torch_file(io.BytesIO(changed)), expected), position
        except NotTensorsError:
            refused += 1
    assert refused > 400  # the rest is padding, times and attributes of the archive
