"""A training step as one CUDA graph: recorded ("captured") once, then launched as a whole.

Python names a GPU's kernels one by one, at some microseconds each. A step of a small network has hundreds of them, and
the GPU waits. A graph keeps the list; Python then says one thing a step (NVIDIA 2021, "Accelerating PyTorch with CUDA
Graphs"). The recorded kernels read and write the same memory every time, so whatever changes from step to step has
to come in as a tensor: views, learning rate, random slices.
"""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

WARMUP = 3  # steps before the recording: libraries choose their kernels, optimizers make their state


class Replay:
    """`step`, a function of CUDA tensors that changes a model in place and returns tensors by name.

    The first calls run it as it is, the next one records it, and all later ones replay the recording. What a call
    returns is overwritten by the next call.
    """

    def __init__(self, step: Callable[..., dict[str, Tensor]], device: torch.device):
        self.step, self.device, self.stream = step, device, torch.cuda.Stream(device)
        self.warmups = WARMUP
        self.inputs: tuple[Tensor, ...] = ()
        self.graph: torch.cuda.CUDAGraph | None = None
        self.result: dict[str, Tensor] = {}

    def __call__(self, *inputs: Tensor) -> dict[str, Tensor]:
        self.inputs = self.inputs or tuple(torch.empty_like(x) for x in inputs)
        for held, x in zip(self.inputs, inputs, strict=True):
            held.copy_(x)
        if self.warmups:
            self.warmups -= 1
            return self._warm_up()
        if self.graph is None:
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph, stream=self.stream):
                self.result = self.step(*self.inputs)
        self.graph.replay()
        return self.result

    def _warm_up(self) -> dict[str, Tensor]:
        """The step as it is, on a stream beside the usual one, as recordings want it."""
        usual = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(usual)
        with torch.cuda.stream(self.stream), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*capturable")  # Adam: that it would be faster otherwise
            result = self.step(*self.inputs)
        usual.wait_stream(self.stream)
        return result


def recordable(optimizer: torch.optim.Optimizer, device: torch.device, on: bool) -> None:
    """Let torch's Adam be recorded, its step counts on the device, or set it back; also after loading its state."""
    for group in optimizer.param_groups:
        if "capturable" in group:  # our own optimizers always can
            group.update(capturable=on, foreach=True if on else None)
            for state in (optimizer.state.get(p, {}) for p in group["params"]):
                if "step" in state:
                    state["step"] = state["step"].float().to(device if on else "cpu")
