"""ONNX models as bytes: graphs of a few operations need no package to be written.

A model is a protocol buffer: fields with numbers, of which those that inference reads are written here. Their numbers
are those of onnx.proto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

OPSET = 21  # the first whose group normalization has a scale for each channel
IR_VERSION = 10
FLOAT32 = 1  # TensorProto.DataType

Attribute = int | float | str | Sequence[int]


@dataclass
class OnnxGraph:
    """A graph that grows node by node, in the order in which they compute.

    :param inputs: name -> sides; a word is a side of any length.
    """

    inputs: Mapping[str, Sequence[int | str]]
    _nodes: list[bytes] = field(default_factory=list)
    _tensors: list[bytes] = field(default_factory=list)
    _count: int = 0

    def tensor(self, values: np.ndarray) -> str:
        """Add float32 weights; their name."""
        name = self._new("w")
        data = np.ascontiguousarray(values, dtype="<f4")
        dims = b"".join(_varint(1, side) for side in data.shape)
        self._tensors.append(dims + _varint(2, FLOAT32) + _bytes(8, name.encode()) + _bytes(9, data.tobytes()))
        return name

    def node(self, operation: str, inputs: Iterable[str], outputs: int = 1, **attributes: Attribute) -> list[str]:
        """Add an operation; the names of its outputs."""
        names = [self._new("t") for _ in range(outputs)]
        parts = [_bytes(1, name.encode()) for name in inputs]
        parts += [_bytes(2, name.encode()) for name in names]
        parts.append(_bytes(4, operation.encode()))
        parts += [_bytes(5, _attribute(name, value)) for name, value in attributes.items()]
        self._nodes.append(b"".join(parts))
        return names

    def model(self, outputs: Mapping[str, str]) -> bytes:
        """The file.

        :param outputs: name that the outside knows -> name in the graph.
        """
        nodes = list(self._nodes)
        for outer, inner in outputs.items():
            nodes.append(_bytes(1, inner.encode()) + _bytes(2, outer.encode()) + _bytes(4, b"Identity"))
        graph = b"".join(_bytes(1, node) for node in nodes) + _bytes(2, b"network")
        graph += b"".join(_bytes(5, tensor) for tensor in self._tensors)
        graph += b"".join(_bytes(11, _value(name, sides)) for name, sides in self.inputs.items())
        graph += b"".join(_bytes(12, _value(name, ("n", f"c_{name}", "h", "w"))) for name in outputs)
        return _varint(1, IR_VERSION) + _bytes(2, b"LesionDecomp") + _bytes(7, graph) + _bytes(8, _varint(2, OPSET))

    def _new(self, kind: str) -> str:
        self._count += 1
        return f"{kind}{self._count}"


def _value(name: str, sides: Sequence[int | str]) -> bytes:
    """A float32 input or output."""
    dims = [_varint(1, side) if isinstance(side, int) else _bytes(2, side.encode()) for side in sides]
    tensor = _varint(1, FLOAT32) + _bytes(2, b"".join(_bytes(1, dim) for dim in dims))
    return _bytes(1, name.encode()) + _bytes(2, _bytes(1, tensor))


def _attribute(name: str, value: Attribute) -> bytes:
    head = _bytes(1, name.encode())
    if isinstance(value, float):
        return head + _key(2, 5) + struct.pack("<f", value) + _varint(20, 1)
    if isinstance(value, int):
        return head + _varint(3, value) + _varint(20, 2)
    if isinstance(value, str):
        return head + _bytes(4, value.encode()) + _varint(20, 3)
    return head + b"".join(_varint(8, number) for number in value) + _varint(20, 7)


def _key(number: int, kind: int) -> bytes:
    return _packed(number << 3 | kind)


def _varint(number: int, value: int) -> bytes:
    return _key(number, 0) + _packed(value)


def _bytes(number: int, data: bytes) -> bytes:
    return _key(number, 2) + _packed(len(data)) + data


def _packed(value: int) -> bytes:
    """A whole number from 0, seven bits a byte, the lowest first."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
