"""A run's state on disk: all of it, or nothing."""

from dataclasses import asdict
from pathlib import Path

import torch

from .runtime import InputError, atomic, save_json


class Checkpoint:
    """Everything a run needs to go on as if never stopped, in one file written all or nothing."""

    NAME = "checkpoint.pt"

    def __init__(self, out: Path | None, config, parts: dict, g: torch.Generator):
        """`config` is a dataclass with MAY_DIFFER_ON_RESUME; `parts` by name are modules and optimizers."""
        self.path = out / self.NAME if out else None
        self.config, self.parts, self.generator = config, parts, g

    def save(self, history: list[dict]) -> None:
        state = {name: part.state_dict() for name, part in self.parts.items()}
        state |= {"config": asdict(self.config), "history": history, "generator": self.generator.get_state()}
        with atomic(self.path) as temporary:
            torch.save(state, temporary)
        save_json(history, self.path.with_name("history.json"))

    def load(self) -> list[dict]:
        """Restore all parts; returns the history so far, empty where there is no checkpoint yet."""
        if not self.path or not self.path.exists():
            return []
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
            self._compare(state["config"])
            for name, part in self.parts.items():
                if state[name] or not isinstance(part, torch.amp.GradScaler):  # which at rest has no state
                    part.load_state_dict(state[name])
            self.generator.set_state(state["generator"])
            return state["history"]
        except InputError:
            raise
        except Exception as error:  # whatever a damaged file makes torch raise
            raise InputError("resume", str(self.path), f"a complete checkpoint of this program ({type(error).__name__})") from error

    def _compare(self, saved: dict) -> None:
        """Refuse to go on with another configuration than the checkpoint's."""
        for name, value in asdict(self.config).items():
            if name not in self.config.MAY_DIFFER_ON_RESUME and saved.get(name) != value:
                raise InputError(name, value, f"{saved.get(name)!r}, as in the checkpoint {self.path}")
