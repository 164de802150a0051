"""Programs with packed weights: the forward pass of a network as calls of oneDNN, without its modules.

Batch norms are folded into the convolutions, and the weights are laid out for oneDNN once. A program is used until
something changes in the network.
"""

from __future__ import annotations

import ctypes
import operator
import os
from collections.abc import Callable, Sequence
from itertools import accumulate, chain
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .shortcuts import folded, folded_bias, linear, norm_scale, suits_onednn

_convolve: Any = getattr(torch.ops.mkldnn, "_convolution_pointwise", None)

# A comparison through NumPy or PyTorch takes twice as long for hundreds of small tensors.
_differ = ctypes.PyDLL("msvcrt" if os.name == "nt" else None).memcmp
_differ.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)


class Packed:
    """The program of a network. It is made when it is first used, and again when the network changes."""

    def __init__(self, make: Callable[[Any], Any]) -> None:
        """``make`` creates a program from a network, or None if the network has layers of another class (adapters).

        ``program.live`` are the weights that the program reads at each call.
        """
        self._make = make
        self._kept: tuple[Watch, Any] | None = None

    def __reduce__(self) -> tuple[type[Packed], tuple[Any]]:
        return Packed, (self._make,)  # copies and pickles of a network start empty

    def program(self, network: nn.Module, x: Tensor) -> Any:
        """Return the program for an input: float32 on the CPU, without gradients.

        None for other inputs, with batch norms in training mode, with forward hooks on parts, and with other layers.
        """
        if _convolve is None or not suits_onednn(x, x):  # `Watch` checks the weights
            return None
        kept = self._kept
        if kept is None or not kept[0].is_current(network):
            with torch.inference_mode(False), torch.no_grad():
                watch = Watch(network)
                program = self._make(network) if watch.is_packable else None
                if program is not None:
                    watch.allow_changes(program.live)
                kept = self._kept = watch, program
        return None if kept[0].is_hooked_or_training() else kept[1]


class Watch:
    """Notices other modules, other tensors and other values in a network.

    All values are compared with a copy, because version counters do not notice ``parameter.data.mul_()``. That takes
    0.3 ms for EfficientFace, most of it to load the values from memory; so does every object that Python touches.
    """

    def __init__(self, network: nn.Module) -> None:
        parts: list[Any] = [network]
        for part in parts:  # it grows meanwhile
            parts.extend(part._modules.values())
        self._parts = parts
        self._types = list(map(type, parts))
        self._children = [part._modules for part in parts if part._modules]
        self._handles = -1
        self._norms = [part for part in parts if isinstance(part, nn.modules.batchnorm._BatchNorm)]

        holders = [holder for part in parts for holder in (part._parameters, part._buffers)]
        places = [(h, name, t) for h in holders for name, t in h.items() if t is not None and t.is_floating_point()]
        self._holders, self._names, self._tensors = map(list, zip(*places))
        self.is_packable = all(map(_is_packable, self._tensors))
        if self.is_packable:
            self._copy_values()

    def _copy_values(self) -> None:
        self._sizes = [tensor.numel() * tensor.element_size() for tensor in self._tensors]
        self._addresses = [tensor.data_ptr() for tensor in self._tensors]
        self._memory = [tensor.detach().as_strided((tensor.numel(),), (1,)) for tensor in self._tensors]  # keeps it
        self._copy = torch.cat(self._memory)
        self._kept = list(accumulate(self._sizes[:-1], initial=self._copy.data_ptr()))

    def allow_changes(self, weights: Sequence[Tensor]) -> None:
        """Do not compare the values of weights that a program reads at each call."""
        for place, tensor in enumerate(self._tensors):
            if any(tensor is weight for weight in weights):
                self._sizes[place] = 0

    def is_current(self, network: nn.Module) -> bool:
        """Return whether nothing has changed."""
        parts = [network, *chain.from_iterable(map(dict.values, self._children))]
        if parts != self._parts or list(map(type, parts)) != self._types:
            return False
        if not all(map(operator.is_, map(dict.get, self._holders, self._names), self._tensors)):
            return False
        if not self.is_packable:
            return True
        if list(map(Tensor.data_ptr, self._tensors)) != self._addresses:
            return False
        return not any(map(_differ, self._addresses, self._kept, self._sizes))

    def is_hooked_or_training(self) -> bool:
        """Return whether a part has a forward hook, or a batch norm uses the statistics of the batch."""
        if self._handles != RemovableHandle.next_id:  # a hook was registered somewhere
            handles = RemovableHandle.next_id
            self._hooks = [hooks for part in self._parts for hooks in (part._forward_hooks, part._forward_pre_hooks)]
            self._handles = handles  # last, since other threads read it
        return any(self._hooks) or any(map(_IS_TRAINING, self._norms))


_IS_TRAINING = operator.attrgetter("training")


def _is_packable(tensor: Tensor) -> bool:
    """Return whether a tensor has float32 values that fill a block of memory."""
    usual = type(tensor) in (Tensor, nn.Parameter) and tensor.is_cpu and not tensor.is_inference()
    dense = tensor.is_contiguous() or (tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last))
    return usual and dense and tensor.dtype is torch.float32


# -- operations --------------------------------------------------------------------------------------------------------


class PackedConv:
    """A convolution with its batch norm folded in. The weight is laid out at the first call."""

    def __init__(self, weight: Tensor, bias: Tensor, relu: bool, *options: Any) -> None:
        """``options``: padding, stride, dilation and groups."""
        self.weight, self.bias, self.options = weight, bias, options
        self.act = "relu" if relu else "none"
        self.packed: Tensor | None = None

    @classmethod
    def of(cls, conv: Any, norm: Any, relu: bool) -> PackedConv:
        return cls(*folded(conv, norm), relu, conv.padding, conv.stride, conv.dilation, conv.groups)

    @classmethod
    def side_by_side(cls, convs: Sequence[PackedConv]) -> PackedConv:
        """Make one grouped convolution for inputs that are concatenated along the channels."""
        weight, bias = (torch.cat(values) for values in ([c.weight for c in convs], [c.bias for c in convs]))
        *options, groups = convs[0].options
        return cls(weight, bias, convs[0].act == "relu", *options, groups * len(convs))

    def __call__(self, x: Tensor) -> Tensor:
        if self.packed is None:
            if self.weight.shape[1] == 3:  # the layout for oneDNN would pad three channels to sixteen
                return self._unpacked(x)
            with torch.inference_mode(False), torch.no_grad():
                self.packed = torch.ops.mkldnn._reorder_convolution_weight(self.weight, *self.options, list(x.shape))
        return _convolve(x, self.packed, self.bias, *self.options, self.act, [], "")

    def _unpacked(self, x: Tensor) -> Tensor:
        padding, stride, dilation, groups = self.options
        x = F.conv2d(x, self.weight, self.bias, stride, padding, dilation, groups)
        return x.relu_() if self.act == "relu" else x


class LivePointwise:
    """A convolution of single pixels, with its batch norm and ReLU, that reads its weight at each call.

    For a large weight that is cheaper than to compare it with a copy.
    """

    def __init__(self, conv: Any, norm: Any) -> None:
        self.weight = conv.weight
        self.scale = norm_scale(norm)[:, None]
        self.bias = folded_bias(conv, norm)

    def __call__(self, x: Tensor) -> Tensor:
        rows = x.permute(0, 2, 3, 1)
        return linear(rows, self.weight.flatten(1) * self.scale, self.bias, "relu").permute(0, 3, 1, 2)


def interleaved(left: Tensor, right: Tensor) -> Tensor:
    """Interleave the channels of two maps (N, H, W, C). Complex numbers do that in one pass."""
    return torch.view_as_real(torch.complex(left, right)).flatten(-2)


def relu_max_pool(x: Tensor) -> Tensor:
    """Max pooling with kernel 3, stride 2 and padding 1, of values from 0 on: first over rows, then over columns.

    In channels_last several times as fast as `F.max_pool2d`, which also searches for the indices.
    """
    rows = x.permute(0, 2, 3, 1)
    rows = _max_of_three(rows, 1)
    return _max_of_three(rows, 2).permute(0, 3, 1, 2)


def _max_of_three(x: Tensor, dim: int) -> Tensor:
    """The maximum of the neighbours 2i - 1, 2i and 2i + 1 along a dimension of even length."""
    even, odd = x.unflatten(dim, (-1, 2)).unbind(dim + 1)
    out = torch.maximum(even, odd)
    later = out.narrow(dim, 1, out.shape[dim] - 1)
    torch.maximum(later, odd.narrow(dim, 0, later.shape[dim]), out=later)
    return out
