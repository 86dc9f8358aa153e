import json

import pytest
import torch

from jepa_utils import runtime
from jepa_utils.runtime import InputError


def test_atomic_gives_the_final_name_and_makes_the_folder(tmp_path):
    path = tmp_path / "new" / "file"
    with runtime.atomic(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()  # nobody can see a half-written file under the final name
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
@pytest.mark.parametrize("before", [None, "old"])
def test_atomic_leaves_things_as_they_were_when_the_block_fails(tmp_path, before, error):
    path = tmp_path / "file"
    if before:
        path.write_text(before)

    def fails():
        with runtime.atomic(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        fails()
    assert [p.read_text() for p in tmp_path.iterdir()] == [before] * bool(before)


def test_save_json_writes_what_json_reads_back_and_nothing_of_what_it_cannot_write(tmp_path):
    path = tmp_path / "value.json"
    value = {"figures": [1, 2.5, None], "name": "jepa"}
    assert runtime.save_json(value, path) == path
    with pytest.raises(TypeError):
        runtime.save_json({"tensor": torch.zeros(1)}, path)
    assert json.loads(path.read_text()) == value
    assert list(tmp_path.iterdir()) == [path]


def test_input_error_names_parameter_value_and_what_is_accepted_in_one_line():
    error = InputError("batch_size", 1, "a whole number of at least 2")
    assert isinstance(error, ValueError)
    assert str(error) == "batch_size: 1 was given; accepted: a whole number of at least 2"


@pytest.mark.parametrize(("setting", "gpu", "expected"), [
    ("smoke", True, "smoke"), ("quick", True, "quick"), ("full", False, "full"), ("", False, "quick"), (None, True, "full"),
])
def test_budget_follows_the_environment_and_else_the_hardware(monkeypatch, setting, gpu, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.delenv("JEPA_BUDGET", raising=False)
    if setting is not None:
        monkeypatch.setenv("JEPA_BUDGET", setting)
    budget = runtime.budget()
    assert budget.name == expected
    assert budget.pick(smoke="smoke", quick="quick", full="full") == expected


def test_an_unknown_budget_is_refused_by_name(monkeypatch):
    monkeypatch.setenv("JEPA_BUDGET", "enormous")
    with pytest.raises(InputError, match=r"JEPA_BUDGET: 'enormous' .* smoke, quick, full"):
        runtime.budget()


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
    monkeypatch.setenv("JEPA_BUDGET", "smoke")
    report = runtime.environment()
    assert report.keys() == {"device", "hardware", "threads", "bf16", "python", "torch", "numpy", "budget"}
    assert (report["threads"], report["torch"], report["budget"]) == (torch.get_num_threads(), torch.__version__, "smoke")
    assert report["hardware"]
    assert json.loads(json.dumps(report)) == report


@pytest.mark.parametrize(("xdg", "expected"), [("elsewhere", "elsewhere/jepa"), ("", "home/.cache/jepa")])
def test_the_cache_lies_in_the_users_home_unless_the_environment_moves_it(monkeypatch, tmp_path, xdg, expected):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", xdg and str(tmp_path / xdg))
    assert runtime.cache_folder() == tmp_path / expected
