"""A run's state on disk: all of it, or nothing, in a folder of its own."""

import hashlib
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from .config import TrainConfig
from .runtime import InputError, save_json, save_tensors


class Checkpoint:
    """Everything a run needs to go on as if never stopped, in one file written all or nothing."""

    NAME = "checkpoint.pt"
    LENGTH = ("epochs", "max_steps")  # what an extended run may have more of

    def __init__(
        self, out: Path | None, config: TrainConfig, parts: dict, g: torch.Generator,
        data: dict[str, Tensor | None] | None = None,
    ):
        """`parts` by name are modules and optimizers; `data` by name, what the run trains on."""
        self.path = out / self.NAME if out else None
        self.config, self.parts, self.generator = config, parts, g
        self.data = {name: digest(x) for name, x in (data or {}).items()} if out else {}

    def save(self, history: list[dict]) -> None:
        """Write checkpoint and history, if there is a folder for them."""
        if not self.path:
            return
        state = {name: part.state_dict() for name, part in self.parts.items()}
        state |= {"config": asdict(self.config), "data": self.data, "history": history,
                  "generator": self.generator.get_state()}
        save_tensors(state, self.path)
        save_json(history, self.path.with_name("history.json"))

    def load(self, extend: bool = False) -> list[dict]:
        """Restore all parts; returns the history so far, empty where there is no checkpoint yet.

        Raises InputError for a damaged file, for another configuration than the checkpoint's, and for
        other images or labels. With `extend` the run may become longer: weights, optimizer and random
        numbers go on, and the rate follows the schedule of the new length from here.
        """
        if not self.path or not self.path.exists():
            return []
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
            self._compare(state["config"], extend)
            for name, found in self.data.items():
                if state["data"][name] != found:
                    raise InputError(name, f"others than in {self.path}",
                                     "those the run began with; a new --out for a new run")
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
            if not (extend and name in self.LENGTH):
                also = "; or --extend to make the run longer" if name in self.LENGTH else ""
                raise InputError(name, value, f"{before!r}, as in the checkpoint {self.path}{also}")
            if value is not None and (before is None or value < before):
                raise InputError(name, value, f"more than {before!r}: a run can be extended, not shortened")


def digest(x: Tensor | None) -> str:
    """A fingerprint of a tensor's values, shape and type."""
    if x is None:
        return ""
    found = hashlib.sha256(f"{x.dtype} {tuple(x.shape)}".encode())
    found.update(x.cpu().contiguous().numpy().data)
    return found.hexdigest()


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
    except NotImplementedError:  # a file system without locks: some networks', some clouds'
        pass
    except OSError as error:
        raise InputError("out", str(out), f"a folder that can be written ({error.strerror})") from error
    try:
        for left in out.glob(".*.part"):
            left.unlink()
        yield
    finally:
        lock.release()
        if not lock.is_locked:
            with suppress(OSError):  # another run may have claimed it already
                (out / ".lock").unlink()
