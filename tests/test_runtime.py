import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from jepa_utils import runtime
from jepa_utils.runtime import InputError


def test_seeded_sets_the_random_numbers_of_the_cpu_alone(monkeypatch):
    torch.manual_seed(3)
    drawn, before = torch.randn(4), torch.get_rng_state()
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("those of the GPUs were set"))
    with runtime.seeded(3):
        assert torch.equal(torch.randn(4), drawn)
    assert torch.equal(torch.get_rng_state(), before)


def test_atomic_gives_the_final_name_and_makes_the_folder(tmp_path):
    path = tmp_path / "new" / "file"
    with runtime.atomic(path) as temporary:
        temporary.write_text("whole", encoding="utf-8")
        assert not path.exists()  # nobody can see a half-written file under the final name
    assert path.read_text(encoding="utf-8") == "whole"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
@pytest.mark.parametrize("before", [None, "old"])
def test_atomic_leaves_things_as_they_were_when_the_block_fails(tmp_path, before, error):
    path = tmp_path / "file"
    if before:
        path.write_text(before, encoding="utf-8")

    def fails():
        with runtime.atomic(path) as temporary:
            temporary.write_text("half", encoding="utf-8")
            raise error

    with pytest.raises(error):
        fails()
    assert [p.read_text(encoding="utf-8") for p in tmp_path.iterdir()] == [before] * bool(before)


def test_save_json_writes_what_json_reads_back_and_nothing_of_what_it_cannot_write(tmp_path):
    path = tmp_path / "value.json"
    value = {"figures": [1, 2.5, None], "name": "jepa"}
    assert runtime.save_json(value, path) == path
    with pytest.raises(TypeError):
        runtime.save_json({"tensor": torch.zeros(1)}, path)
    assert json.loads(path.read_text(encoding="utf-8")) == value
    assert list(tmp_path.iterdir()) == [path]


def test_input_error_names_parameter_value_and_what_is_accepted_in_one_line():
    error = InputError("batch_size", 1, "a whole number of at least 2")
    assert isinstance(error, ValueError)
    assert str(error) == "batch_size: 1 was given; accepted: a whole number of at least 2"


@pytest.mark.parametrize(("cuda", "expected"), [(False, "cpu"), (True, "cuda")])
def test_auto_takes_a_gpu_where_there_is_one(monkeypatch, cuda, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)  # taken only when asked for
    assert runtime.pick_device().type == expected


def test_a_device_can_be_named():
    assert runtime.pick_device("cpu") == torch.device("cpu")


# meta tensors hold no numbers: torch makes them, but nothing can be trained there
@pytest.mark.parametrize("name", ["gpu", "", "tpu", "cuda:99", "cuda:x", "meta"])
def test_a_device_that_cannot_be_used_is_refused_by_name(name):
    with pytest.raises(InputError, match=f"^device: '{name}' was given"):
        runtime.pick_device(name)


def test_a_generator_is_a_stream_of_its_own():
    torch.manual_seed(0)
    untouched = torch.rand(3)
    torch.manual_seed(0)
    first, again, other = (torch.rand(3, generator=runtime.generator(seed)) for seed in (5, 5, 6))
    assert torch.equal(torch.rand(3), untouched)  # drawing from it does not move the global stream
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_environment_says_what_timings_depend_on(monkeypatch):
    report = runtime.environment()
    assert report.keys() == {"device", "hardware", "threads", "precision", "python", "torch", "numpy"}
    assert (report["threads"], report["torch"]) == (torch.get_num_threads(), torch.__version__)
    assert getattr(torch, report["precision"]) is runtime.precision(runtime.pick_device())
    assert report["hardware"]
    assert json.loads(json.dumps(report)) == report
    monkeypatch.setenv("JEPA_BUDGET", "enormous")  # which is the notebooks' concern, and refused there
    assert runtime.environment() == report


@pytest.mark.parametrize(("xdg", "expected"), [("elsewhere", "elsewhere/jepa"), ("", "home/.cache/jepa")])
def test_the_cache_lies_in_the_users_home_unless_the_environment_moves_it(monkeypatch, tmp_path, xdg, expected):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", xdg and str(tmp_path / xdg))
    assert runtime.cache_folder() == tmp_path / expected


# ------------------------------------------------------------------------------------ where runs are kept

DRIVE = Path("/content/drive/MyDrive")


@pytest.fixture
def mount(monkeypatch):
    """Call it to mount a Drive, or to say that there is none, wherever the tests run."""
    is_dir = Path.is_dir

    def mount(there):
        monkeypatch.setattr(Path, "is_dir", lambda path: there if path == DRIVE else is_dir(path))

    return mount


@pytest.mark.parametrize(("setting", "drive", "expected"), [
    (None, False, Path("runs")), ("", False, Path("runs")),
    (None, True, DRIVE / "jepa-runs"), ("", True, DRIVE / "jepa-runs"),
    ("elsewhere", False, Path("elsewhere")), ("elsewhere", True, Path("elsewhere")),
])
def test_runs_are_kept_where_jepa_runs_says_else_on_a_drive_else_here(monkeypatch, mount, setting, drive, expected):
    mount(drive)
    if setting is not None:
        monkeypatch.setenv("JEPA_RUNS", setting)
    assert runtime.runs_folder() == expected


def test_a_tilde_in_jepa_runs_is_the_users_home(monkeypatch, tmp_path):
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("JEPA_RUNS", "~/kept/runs")
    assert runtime.runs_folder() == tmp_path / "kept" / "runs"


def test_saying_where_runs_are_kept_makes_no_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("JEPA_RUNS", str(tmp_path / "runs"))
    assert not runtime.runs_folder().exists()


# --------------------------------------------------------------------------------------- memory of the C library


@pytest.mark.parametrize("accepts", [1, 0])
def test_freed_memory_is_kept_where_the_c_library_lets_it(monkeypatch, accepts):
    asked = []
    library = SimpleNamespace(mallopt=lambda *option: asked.append(option) or accepts)
    monkeypatch.setattr(runtime.ctypes, "CDLL", lambda name: library)
    runtime.keep_freed_memory()
    thresholds = [(-3, 1 << 30), (-1, (1 << 31) - 1)]  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD of malloc.h
    assert asked == (thresholds if accepts else thresholds[:1])


@pytest.mark.parametrize(
    "library", [SimpleNamespace(), OSError, TypeError], ids=["no mallopt", "no library", "Windows"])
def test_where_the_c_library_has_no_mallopt_nothing_happens(monkeypatch, library):
    def load(name):
        if isinstance(library, type):
            raise library
        return library

    monkeypatch.setattr(runtime.ctypes, "CDLL", load)
    runtime.keep_freed_memory()
