"""A run's state on disk: all of it, or nothing, in a folder of its own."""

import errno
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from .config import TrainConfig
from .runtime import InputError, released, save_json, save_tensors

WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # what some file systems of networks and clouds say


class Checkpoint:
    """Everything a run needs to go on as if never stopped, in one file written all or nothing."""

    NAME = "checkpoint.pt"
    SAME = 0.5  # gray levels by which another machine's rounding may change an image's mean

    def __init__(
        self, out: Path | None, config: TrainConfig, parts: dict, g: torch.Generator,
        images: Tensor, labels: Tensor | None,
    ):
        """`parts` by name are modules and optimizers; images and labels are what the run trains on."""
        self.path = out / self.NAME if out else None
        self.config, self.parts, self.generator = config, parts, g
        self.data = fingerprint(images, labels) if out else {}

    def save(self, history: list[dict]) -> None:
        """Write checkpoint and history, if there is a folder for them."""
        if not self.path:
            return
        state = {name: part.state_dict() for name, part in self.parts.items()}
        state |= {"config": asdict(self.config), "data": self.data, "history": history,
                  "generator": self.generator.get_state()}
        save_tensors(state, self.path)
        self.save_history(history)

    def save_history(self, history: list[dict]) -> None:
        if self.path:
            save_json(history, self.path.with_name("history.json"))

    def load(self, extend: bool = False) -> list[dict]:
        """Restore all parts; returns the history so far, empty where there is no checkpoint yet.

        Raises InputError for a damaged file, for another configuration than the checkpoint's, and for
        other images or labels. With `extend` the run may become longer: weights, optimizer and random
        numbers go on, and the rate follows the schedule of more epochs from here.
        """
        if not self.path or not self.path.exists():
            return []
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
            self._compare(state["config"], extend)
            for name, found in self.data.items():
                before = state["data"][name]
                if before.shape != found.shape or (before - found).abs().gt(self.SAME).any():
                    raise InputError(name, f"others than in {self.path}", "those that the run began with")
            for name, part in self.parts.items():
                if state[name] or not isinstance(part, torch.amp.GradScaler):  # which at rest has no state
                    part.load_state_dict(state[name])
            self.generator.set_state(state["generator"])
            return state["history"]
        except InputError:
            raise
        except Exception as error:  # whatever a damaged file makes torch raise
            accepted = f"a complete checkpoint of this program ({type(error).__name__})"
            raise InputError("resume", str(self.path), accepted) from error

    def _compare(self, saved: dict, extend: bool) -> None:
        """Refuse to go on with another configuration than the checkpoint's."""
        for name, value in asdict(self.config).items():
            before = saved.get(name)
            if name in self.config.MAY_DIFFER_ON_RESUME or before == value:
                continue
            if name != "epochs" or not extend:
                also = "; or extend, to make the run longer" if name == "epochs" else ""
                raise InputError(name, value, f"{before!r}, as in the checkpoint {self.path}{also}")
            if value < before:
                raise InputError(name, value, f"more than {before}: a run can be extended, not shortened")
            if self.config.max_steps:  # it would not get any longer, or go on in the middle of an epoch
                raise InputError("max_steps", self.config.max_steps, "none, for a run that is to be extended")


def fingerprint(images: Tensor, labels: Tensor | None) -> dict[str, Tensor]:
    """What tells a training set from another: the mean of each image (N,), in gray levels, and the labels (N,)."""
    means = torch.cat([part.float().mean(dim=(1, 2, 3)) for part in images.split(4096)]).cpu()
    return {"images": means, "labels": torch.empty(0) if labels is None else labels.cpu()}


@contextmanager
def claimed(out: Path | None):
    """Keep a run's folder to this process while the block runs; what a killed save left there is swept first.

    May be nested. Raises InputError if another process holds the folder or it cannot be written.
    """
    if out is None:
        yield
        return
    lock = FileLock(out / ".lock", timeout=0, is_singleton=True)
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise InputError("out", str(out), "a folder that no other run is using") from error
    except NotImplementedError:
        pass
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise InputError("out", str(out), f"a folder that can be written ({error.strerror})") from error
    with released(lock):
        for left in out.glob(".*.part"):
            left.unlink()
        yield
