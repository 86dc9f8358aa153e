"""A device that is not the CPU, for machines without one: its tensors hide CPU tensors that have their numbers.

torch lets a Python program register a device. Here every operation on it is computed on the CPU, forward and
backward, and watched on the way: what CUDA refuses raises, and what would make CUDA's caller wait is noted.

A process registers the device for good, and before its first backward pass: autograd then starts a thread for each
device it knows. So it belongs in a process of its own.
"""

import os
import sys
from typing import ClassVar, NamedTuple

import torch
from torch import Tag, Tensor
from torch.optim import optimizer
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map, tree_map_only

NAME = "elsewhere"  # as in torch.device("elsewhere")
TORCH = os.path.dirname(torch.__file__)
aten = torch.ops.aten
COPIES = (aten.copy_.default, aten._to_copy.default)
INDEXING = (aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_)


def missing() -> str:
    """What keeps this torch from having the device; nothing, if it can."""
    if hasattr(backend_registration, "_setup_privateuseone_for_python_backend"):
        return ""
    return f"torch {torch.__version__} cannot register a device from Python"


def register() -> None:
    """Make torch.device("elsewhere") a device that networks can train on, for the rest of this process."""

    class Backend(backend_registration._DummyBackendModule):
        def get_amp_supported_dtype(self):  # torch.autocast asks even when it is to be off
            return [torch.bfloat16, torch.float16]

    backend_registration._setup_privateuseone_for_python_backend(NAME, Backend())
    torch.Generator = Generator
    # On CUDA optimizers update all weights in one operation; of classes that they do not know, one weight at a time.
    optimizer._foreach_supported_types.append(Elsewhere)
    # On CUDA Module.to() keeps the parameters, which an optimizer may have; those of another class it would replace.
    torch.__future__.set_swap_module_params_on_conversion(True)
    # torch.tensor(values, device=...) hides its copy to the device from `OtherDevice` otherwise.
    torch._C._set_only_lift_cpu_tensors(True)
    torch.set_num_threads(1)


class Generator(torch.Generator):
    """torch.Generator, with one of the CPU's standing in for the other device's, which Python cannot register."""

    stand_ins: ClassVar[dict] = {}  # by address: what an operation is called with is another object for the same stream

    def __new__(cls, device="cpu"):
        if torch.device(device).type != NAME:
            return super().__new__(cls, device)
        generator = super().__new__(cls, "cpu")
        cls.stand_ins[generator._cdata] = generator
        return generator


class Elsewhere(Tensor):
    """A tensor of the other device; `numbers` is the CPU tensor behind it."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, numbers: Tensor):
        return Tensor._make_wrapper_subclass(
            cls, numbers.shape, strides=numbers.stride(), storage_offset=numbers.storage_offset(), dtype=numbers.dtype,
            device=torch.device(NAME, 0))

    def __init__(self, numbers: Tensor):
        self.numbers = numbers

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise RuntimeError(f"{func} outside `with OtherDevice()`")

    def tolist(self):  # for another class torch refuses this, and formats an object instead of a number
        return self.cpu().tolist()

    def __format__(self, how):
        return format(self.detach().cpu(), how)

    def __reduce_ex__(self, protocol):  # saved as a CPU tensor: a checkpoint is loaded there first
        return self.cpu().__reduce_ex__(protocol)


class Moment(NamedTuple):
    """When something happened that the device notes."""

    operation: str
    function: str  # that asked for it: the innermost one outside torch
    line: str  # of the source


class OtherDevice(TorchDispatchMode):
    """While it is entered, tensors can be made on the other device and moved there, and all that happens is watched.

    Raises RuntimeError where an operation mixes devices, as CUDA does: a tensor of the CPU may only be a single number
    in pointwise arithmetic. Random numbers must come from a generator of the device that they are for.
    """

    def __init__(self):
        super().__init__()
        self.waits: list[Moment] = []  # for numbers of the device, or for a copy to it to end
        self.sent: list[Moment] = []  # copies to the device that are not waited for
        self.refused = ""  # what is still to be raised

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        ours = [x for x in tensors if isinstance(x, Elsewhere)]
        to = kwargs.get("device")
        stays = bool(ours) if to is None else torch.device(to).type == NAME  # the result is a tensor of this device
        self.refuse(fault(func, args, kwargs, tensors, stays))
        if not ours and not stays:
            return func(*args, **kwargs)
        if func in COPIES:
            self.note_copy(func, args, kwargs, stays)
        elif waits(func, args):
            self.waits.append(moment(func))
        result = func(*tree_map(numbers, args), **tree_map(numbers, kwargs))
        if any(x.shape != x.numbers.shape for x in ours):
            raise NotImplementedError(f"{func} changes a shape in place")
        if not stays:
            return result
        given = {id(numbers(x)): x for x in tensors}  # what is changed in place stays the tensor it was
        return tree_map_only(Tensor, lambda x: given[id(x)] if id(x) in given else Elsewhere(x), result)

    def refuse(self, reason: str) -> None:
        """Raise; but during a backward pass, where an error would end the process, only at its end."""
        self.refused = self.refused or reason
        if self.refused and torch._C._current_graph_task_id() == -1:
            reason, self.refused = self.refused, ""
            raise RuntimeError(reason)

    def note_copy(self, func, args, kwargs, stays: bool) -> None:
        """Of copies from one device to another: which are waited for, and which are not."""
        in_place = func is aten.copy_.default
        source, arrives = (args[1], isinstance(args[0], Elsewhere)) if in_place else (args[0], stays)
        if arrives != isinstance(source, Elsewhere):
            non_blocking = kwargs.get("non_blocking", in_place and len(args) > 2 and args[2])
            (self.sent if arrives and non_blocking else self.waits).append(moment(func))


def numbers(x):
    """What the CPU computes with in place of an argument that may be a tensor of the other device, or that device."""
    if isinstance(x, Elsewhere):
        return x.numbers
    return torch.device("cpu") if isinstance(x, torch.device) and x.type == NAME else x


def fault(func, args, kwargs, tensors: list[Tensor], stays: bool) -> str:
    """What CUDA would refuse, if anything: another device's generator, or a CPU tensor beside the device's own."""
    generator = kwargs.get("generator")
    if generator is not None and (generator._cdata in Generator.stand_ins) != stays:
        return f"{func}: a generator of another device, in {moment(func)}"
    foreign = [x for x in tensors if not isinstance(x, Elsewhere)]
    if func in COPIES or len(foreign) == len(tensors):
        return ""
    if func.overloadpacket in INDEXING and isinstance(args[0], Elsewhere):  # CUDA copies indices, see `waits`
        foreign = [x for x in foreign if not any(x is index for index in args[1])]
    scalars_allowed = Tag.pointwise in func.tags or func is aten.fill_.Tensor
    written = func._schema.is_mutable and any(x is args[0] for x in foreign)
    if foreign and (written or not scalars_allowed or any(x.ndim for x in foreign)):
        return f"{func}: tensors on two devices, {[tuple(x.shape) for x in foreign]} on the CPU, in {moment(func)}"
    return ""


def waits(func, args) -> bool:
    """Whether CUDA's caller waits: for the numbers themselves, or because the result's size depends on them."""
    if func.overloadpacket in INDEXING:  # a mask is searched for True, an index on the CPU is copied
        return any(i.dtype in (torch.bool, torch.uint8) or i.device.type == "cpu" for i in args[1] if i is not None)
    depends = {Tag.data_dependent_output, Tag.dynamic_output_shape}.intersection(func.tags)
    return bool(depends) or func is aten._linalg_check_errors.default


def moment(func) -> Moment:
    """Now, as the innermost function outside torch sees it."""
    frame = sys._getframe(1)
    while frame and frame.f_code.co_filename.startswith((TORCH, __file__)):
        frame = frame.f_back
    if frame is None:  # autograd's thread
        return Moment(str(func), "backward", "")
    code = frame.f_code
    return Moment(str(func), code.co_name, f"{os.path.basename(code.co_filename)}:{frame.f_lineno}")
