import shutil
from pathlib import Path

import pytest
from shell import SMALL, figures, files, one_error_line, strict_json

from jepa_utils import runtime


@pytest.fixture
def trained(call, session_cache):
    """Lines of arguments of a finished run, whose results lie in the folder `here`."""
    options, kept = f"{SMALL} --out here", session_cache / "trained"
    if not kept.exists():  # trained once, copied from then on
        assert call(options).code == 0
        shutil.copytree("here", kept)
    else:
        shutil.copytree(kept, "here")
    return options


def test_resuming_a_finished_run_gives_its_figures_again(call, trained):
    metrics = strict_json(Path("here/metrics.json").read_text(encoding="utf-8"))
    assert call(f"{trained} --resume").code == 0
    assert figures(strict_json(Path("here/metrics.json").read_text(encoding="utf-8"))) == figures(metrics)


def test_resuming_a_folder_without_a_checkpoint_starts_the_run(call, trained):
    assert call(f"{SMALL} --out new --resume").code == 0
    new, here = (strict_json(Path(folder, "metrics.json").read_text(encoding="utf-8")) for folder in ("new", "here"))
    assert figures(new) == figures(here)
    assert files("new").keys() == files("here").keys()


@pytest.mark.fault("another run, or other data, under --resume")
@pytest.mark.parametrize(("options", "name"), [
    ("", "out"), ("--resume --predictor mlp", "predictor"), ("--resume --lr 0.5", "lr"),
    ("--resume --epochs 3", "epochs"),
    *(pytest.param(f"--resume --{option}", option.split()[0], marks=pytest.mark.slow) for option in (
        "dobs 3", "recipe laptop-none", "task classes", "limit 48", "augmentation nothing",
        "dataset cifar10 --task classes")),
])
def test_another_run_is_refused_by_name_and_leaves_the_results_as_they_were(
    call, cifar10_folder, trained, options, name,
):
    before = files("here")
    done = call(f"{trained} {options}")
    assert (done.code, done.out) == (2, [])
    assert one_error_line(done.err, f"{name}: ")
    assert files("here") == before


def test_a_damaged_checkpoint_is_refused_by_name_and_left_as_it_was(call, trained):
    path = Path("here/checkpoint.pt")
    path.write_bytes(path.read_bytes()[:5000])
    before = files("here")
    done = call(f"{trained} --resume")
    assert (done.code, done.out) == (2, [])
    assert one_error_line(done.err, "here/checkpoint.pt")
    assert files("here") == before


def test_a_place_where_no_folder_can_be_made_is_refused_by_name(call):
    Path("file").write_text("in the way", encoding="utf-8")
    done = call(f"{SMALL} --out file/below")
    assert (done.code, files(".")) == (2, {"file": b"in the way"})
    assert one_error_line(done.err, "out: 'file/below'")


def test_a_full_disk_leaves_no_half_written_encoder(call, monkeypatch):
    write = runtime.Remembering.write

    def full_disk(file, data):
        if "encoder" in str(file.name) and file.tell() > 1000:
            raise OSError(28, "No space left on device")
        return write(file, data)

    monkeypatch.setattr(runtime.Remembering, "write", full_disk)
    done = call(f"{SMALL} --out here")
    assert done.code == 2
    assert one_error_line(done.err, "No space left on device: 'here/encoder.pt'")
    assert files("here").keys() == {"checkpoint.pt", "config.json", "history.json"}
