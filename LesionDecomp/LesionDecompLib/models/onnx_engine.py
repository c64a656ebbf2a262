"""ONNX Runtime in the place of torch: the same networks in float32, whose convolutions it computes faster on CPUs.

A network's graph is written anew in each process, from its modules: nothing is exported, kept or shipped, and no
package but onnxruntime is needed.
"""

from __future__ import annotations

import importlib.util
import operator
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import fx, nn
from torch.nn import functional

from ..errors import ConfigError, ModelError
from .networks import Decomposition, DecompositionNet
from .onnx_file import OnnxGraph

if TYPE_CHECKING:
    import onnxruntime

STAGE = "ONNX Runtime"
PACKAGE = "onnxruntime"
LARGEST_ERROR = 1e-4
# Pixels of the slices computed at a time: more are no faster, and ONNX Runtime keeps the memory of its largest batch.
PIXELS_AT_A_TIME = 2**17
CHECKED_SIZE = (2, 32, 64)  # slices, rows, columns
LEAVES = (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d, nn.GroupNorm, nn.ReLU, nn.Identity)

Names = list[str]


def has_onnxruntime() -> bool:
    """Whether ONNX Runtime is installed."""
    return importlib.util.find_spec(PACKAGE) is not None


def check_onnxruntime() -> None:
    """Refuse what needs ONNX Runtime where it is not installed.

    :raises LesionDecompError: it is not.
    """
    if not has_onnxruntime():
        advice = "Install it: pip install onnxruntime. Or let PyTorch compute."
        raise ConfigError(STAGE, f"no module '{PACKAGE}'", "ONNX Runtime", advice, code="onnxruntime_missing")


class OnnxNetwork:
    """A network that ONNX Runtime computes, called as the network itself; slices and answers are tensors on the CPU.

    :param network: ready for inference on the CPU; see :func:`.runtime.inference_network`.
    :param channels: of its input.
    :param used: the way of calling it that is checked at once: ``""`` (itself), ``"gate"`` or ``"normal"``; others
        follow when they are first called.
    :raises LesionDecompError: an operation that is not known here, or answers that differ from torch's.
    """

    def __init__(self, network: nn.Module, channels: int, used: str = "") -> None:
        self.plain, self._channels = network, channels
        self._sessions: dict[str, onnxruntime.InferenceSession] = {}
        self._session(used)

    def __call__(self, x: torch.Tensor) -> Any:
        """The network's answer; of a decomposition, see :class:`.networks.Decomposition`."""
        answers = self._run("", x)
        return Decomposition(*answers) if isinstance(self.plain, DecompositionNet) else answers[0]

    def gate(self, x: torch.Tensor) -> torch.Tensor:
        """See :meth:`.networks.DecompositionNet.gate`."""
        return self._run("gate", x)[0]

    def normal(self, x: torch.Tensor) -> torch.Tensor:
        """See :meth:`.networks.DecompositionNet.normal`."""
        return self._run("normal", x)[0]

    def _run(self, used: str, x: torch.Tensor) -> list[torch.Tensor]:
        session, slices = self._session(used), x.contiguous().numpy()
        count = max(1, PIXELS_AT_A_TIME // (x.shape[2] * x.shape[3]))
        parts = [session.run(None, {"x": slices[n : n + count]}) for n in range(0, len(slices), count)]
        return [torch.from_numpy(np.concatenate(answers)) for answers in zip(*parts, strict=True)]

    def _session(self, used: str) -> onnxruntime.InferenceSession:
        if used not in self._sessions:
            work = getattr(self.plain, used) if used else self.plain
            session = _started(onnx_bytes(_Calling(self.plain, used), self._channels))
            self._check(session, work)
            self._sessions[used] = session
        return self._sessions[used]

    @torch.no_grad()
    def _check(self, session: onnxruntime.InferenceSession, work: Callable[[torch.Tensor], Any]) -> None:
        count, rows, columns = CHECKED_SIZE
        generator = torch.Generator().manual_seed(1)
        x = 2 * torch.rand((count, self._channels, rows, columns), generator=generator) - 1
        expected = work(x)
        expected = expected if isinstance(expected, tuple) else (expected,)
        found = session.run(None, {"x": x.numpy()})
        worst = max(float(np.abs(a - b.numpy()).max()) for a, b in zip(found, expected, strict=True))
        if not worst <= LARGEST_ERROR:
            text = f"answers that differ from PyTorch's by {worst:.2g}"
            raise ModelError(STAGE, text, f"at most {LARGEST_ERROR:g}", "Let PyTorch compute.", code="onnx_differs")


class _Calling(nn.Module):
    """A network, called in one of its ways."""

    def __init__(self, network: nn.Module, used: str) -> None:
        super().__init__()
        self.network, self._used = network, used

    def forward(self, x: torch.Tensor) -> Any:
        return getattr(self.network, self._used)(x) if self._used else self.network(x)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, LEAVES)


def onnx_bytes(network: nn.Module, channels: int) -> bytes:
    """A network as an ONNX model: input ``x`` ``(n, channels, h, w)``, outputs ``y0``, ``y1``, ... as it returns them.

    :raises LesionDecompError: an operation that is not known here.
    """
    traced = _Tracer().trace(network)
    modules = dict(network.named_modules())
    graph = OnnxGraph({"x": ("n", channels, "h", "w")})
    names: dict[fx.Node, Names] = {}
    outputs: Names = []
    for node in traced.nodes:
        if node.op == "placeholder":
            names[node] = ["x"]
        elif node.op == "call_module":
            module, inputs = modules[str(node.target)], names[cast(fx.Node, node.args[0])]
            if len(inputs) > 1 and isinstance(module, nn.Conv2d):
                names[node] = _sum_of_convolutions(graph, module, inputs)
            else:
                names[node] = _module(graph, module, inputs)
        elif node.target is torch.cat and _is_only_convolved(node, modules):
            names[node] = [names[part][0] for part in cast(Sequence[fx.Node], node.args[0])]
        elif node.op == "output":
            outputs = names[cast(fx.Node, node.args[0])]
        else:
            names[node] = _function(graph, node, names)
    return graph.model({f"y{number}": name for number, name in enumerate(outputs)})


def _module(graph: OnnxGraph, module: nn.Module, inputs: Names) -> Names:
    if isinstance(module, nn.Identity):
        return inputs
    if isinstance(module, nn.ReLU):
        return graph.node("Relu", inputs)
    given = (getattr(module, name, None) for name in ("weight", "bias"))
    weights = [graph.tensor(_array(tensor)) for tensor in given if tensor is not None]
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        return _convolution(graph, module, [*inputs, *weights])
    if isinstance(module, nn.GroupNorm) and len(weights) == 2:
        inputs = [*inputs, *weights]
        return graph.node("GroupNormalization", inputs, num_groups=module.num_groups, epsilon=float(module.eps))
    if isinstance(module, nn.BatchNorm2d) and len(weights) == 2:
        moments = [graph.tensor(_array(cast(torch.Tensor, m))) for m in (module.running_mean, module.running_var)]
        return graph.node("BatchNormalization", [*inputs, *weights, *moments], epsilon=float(module.eps))
    raise _unknown(type(module).__name__)


def _is_only_convolved(joined: fx.Node, modules: dict[str, nn.Module]) -> bool:
    users = [modules.get(str(user.target)) for user in joined.users if user.op == "call_module"]
    convolved = all(isinstance(module, nn.Conv2d) and module.groups == 1 for module in users)
    return convolved and len(users) == len(joined.users)


def _sum_of_convolutions(graph: OnnxGraph, module: nn.Conv2d, parts: Names) -> Names:
    """A convolution of parts of equal width, as the sum of each part's own.

    ONNX Runtime adds while it convolves, and joining would cost it the layout of its convolutions: 2 to 4 % of the time
    of a network.
    """
    terms, bias = [], module.bias
    for part, weight in zip(parts, module.weight.chunk(len(parts), dim=1), strict=True):
        weights = [graph.tensor(_array(tensor)) for tensor in (weight, bias) if tensor is not None]
        terms += _convolution(graph, module, [part, *weights])
        bias = None
    total = terms[0]
    for term in terms[1:]:
        (total,) = graph.node("Add", [total, term])
    return [total]


def _convolution(graph: OnnxGraph, module: nn.Conv2d | nn.ConvTranspose2d, inputs: Names) -> Names:
    padding = module.padding
    if isinstance(padding, str) or module.padding_mode != "zeros" or any(module.output_padding):
        raise _unknown(f"{type(module).__name__} with padding {padding}")
    return graph.node(
        "ConvTranspose" if isinstance(module, nn.ConvTranspose2d) else "Conv",
        inputs,
        kernel_shape=module.kernel_size,
        strides=module.stride,
        pads=(*padding, *padding),
        dilations=module.dilation,
        group=module.groups,
    )


def _function(graph: OnnxGraph, node: fx.Node, names: dict[fx.Node, Names]) -> Names:
    target, arguments = node.target, [*node.args, *node.kwargs.values()]
    first = arguments[0]
    inputs = [names[part] for part in first] if isinstance(first, list | tuple) else [names.get(cast(Any, first), [])]
    if target is Decomposition:
        return [names[cast(fx.Node, part)][0] for part in arguments]
    if target == "float":
        return inputs[0]
    if target is operator.getitem:
        return [inputs[0][cast(int, arguments[1])]]
    if target in (torch.tanh, torch.sigmoid):
        return graph.node("Tanh" if target is torch.tanh else "Sigmoid", inputs[0])
    if target is torch.cat:
        return graph.node("Concat", [name for names in inputs for name in names], axis=cast(int, arguments[1]))
    if target == "chunk":
        count, axis = cast(Sequence[int], arguments[1:])
        return graph.node("Split", inputs[0], outputs=count, axis=axis, num_outputs=count)
    if target is functional.pixel_shuffle:
        return graph.node("DepthToSpace", inputs[0], blocksize=cast(int, arguments[1]), mode="CRD")
    if target is functional.pixel_unshuffle:  # of a single channel; of several the order would differ
        return graph.node("SpaceToDepth", inputs[0], blocksize=cast(int, arguments[1]))
    if target in (operator.add, operator.mul):
        terms = [
            names[part][0] if isinstance(part, fx.Node) else graph.tensor(np.array(cast(float, part)))
            for part in arguments
        ]
        return graph.node("Add" if target is operator.add else "Mul", terms)
    raise _unknown(getattr(target, "__name__", str(target)))


def _started(model: bytes) -> onnxruntime.InferenceSession:
    import onnxruntime  # an extra, slow to import

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Between two batches other threads compute: those of ONNX Runtime must not wait busily.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().float().contiguous().numpy()


def _unknown(what: str) -> ModelError:
    return ModelError(
        STAGE, f"a network with {what}", "operations known here", "Let PyTorch compute.", code="onnx_not_exported"
    )
