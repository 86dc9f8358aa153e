import hashlib
import io
import os
import pickle
import subprocess
import sys
import tarfile

import numpy as np
import pytest
import torch
from server import assert_holds, batches, packed

from jepa_utils import cifar10, data
from jepa_utils.runtime import InputError


@pytest.fixture
def batches_folder(data_folder, cifar10_arrays):
    folder = data_folder / "cifar-10-batches-py"
    folder.mkdir()
    for name, content in batches(cifar10_arrays).items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture(scope="session")
def archive(cifar10_arrays):
    return packed(batches(cifar10_arrays))


@pytest.mark.parametrize("source", ["cifar10_folder", "batches_folder", "archive_at_hand"])
def test_cifar10_is_read_from_one_file_from_torchvisions_folder_or_from_the_archive(request, cifar10_arrays, source):
    request.getfixturevalue(source)
    dataset = data.load("cifar10")
    assert_holds(dataset, cifar10_arrays)
    assert dataset.classes[3] == "cat"


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.mark.fault("damaged or foreign files of CIFAR-10")
@pytest.mark.parametrize("spoil", [
    lambda raw: b"", lambda raw: raw[: len(raw) // 2], lambda raw: raw[:-1], lambda raw: b"<html>not found</html>",
    lambda raw: raw[:200] + bytes(64) + raw[264:],  # damage in the middle of the compressed stream
    lambda raw: raw[:200] + b"\xff" * 64 + raw[264:],
    lambda raw: npy(np.zeros((50, 3, 32, 32), np.uint8)),
], ids=["empty", "half", "last byte missing", "html", "zeros inside", "ones inside", "npy"])
def test_a_damaged_npz_is_one_error_that_names_the_file(data_folder, cifar10_arrays, spoil):
    path = data_folder / "cifar10.npz"
    np.savez_compressed(path, **cifar10_arrays)
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(InputError, match=rf"^JEPA_DATA: '{path}'"):
        data.cifar10()


@pytest.mark.fault("damaged or foreign files of CIFAR-10")
@pytest.mark.parametrize("changes", [
    {"train_images": np.zeros((50, 32, 32, 3), np.uint8)}, {"test_images": np.zeros((20, 3, 32, 32), np.float32)},
    {"train_labels": np.zeros(49, np.uint8)}, {"train_labels": np.full(50, 10, np.uint8)},
    {"test_labels": np.full(20, 0.5)}, {"train_labels": np.full(50, -1)},
    {"train_images": np.zeros((0, 3, 32, 32), np.uint8), "train_labels": np.zeros(0, np.uint8)},
    {"test_labels": None},
], ids=[
    "channels last", "float images", "a label too few", "label 10", "float labels", "label -1", "no images",
    "key missing",
])
def test_an_npz_of_something_else_is_one_error_that_names_the_file(data_folder, cifar10_arrays, changes):
    np.savez(data_folder / "cifar10.npz", **{k: v for k, v in (cifar10_arrays | changes).items() if v is not None})
    with pytest.raises(InputError, match=rf"^JEPA_DATA: '{data_folder / 'cifar10.npz'}'"):
        data.cifar10()


@pytest.mark.fault("damaged or foreign files of CIFAR-10")
@pytest.mark.parametrize("content", [
    None, b"", b"<html>not found</html>", pickle.dumps([1]), pickle.dumps({b"data": np.zeros((10, 3072), np.uint8)}),
    pickle.dumps({b"data": np.zeros((10, 3072), np.uint8), b"labels": [0] * 9}),
    pickle.dumps({b"data": np.zeros((10, 100), np.uint8), b"labels": [0] * 10}),
    pickle.dumps({b"data": np.zeros((10, 3072), np.uint8), b"labels": [0] * 10}).replace(b"numpy", b"mumpy"),
], ids=["missing", "empty", "html", "list", "no labels", "a label too few", "wrong width", "damaged"])
def test_a_damaged_batch_is_one_error_that_names_the_folder(batches_folder, content):
    batch = batches_folder / "data_batch_2"
    batch.unlink()
    if content is not None:
        batch.write_bytes(content)
    with pytest.raises(InputError, match=rf"^JEPA_DATA: '{batches_folder}"):
        data.cifar10()


def test_the_real_cifar10_has_50000_and_10000_pictures_and_the_published_statistics(monkeypatch, users_cifar10):
    monkeypatch.setenv("JEPA_DATA", str(users_cifar10))
    images = data.cifar10()
    assert images.train_labels.bincount().tolist() == [5000] * 10
    assert images.test_labels.bincount().tolist() == [1000] * 10
    mean, std = images.statistics()
    assert mean == pytest.approx([0.4914, 0.4822, 0.4465], abs=0.005)
    assert std == pytest.approx([0.2470, 0.2435, 0.2616], abs=0.005)


# ------------------------------------------------------------------------------- archive at hand


@pytest.fixture
def archive_at_hand(data_folder, archive, monkeypatch):
    monkeypatch.setattr(cifar10, "MD5", hashlib.md5(archive).hexdigest())
    path = data_folder / "cifar-10-python.tar.gz"
    path.write_bytes(archive)
    return path


@pytest.mark.fault("damaged or foreign files of CIFAR-10")
@pytest.mark.parametrize("spoil", [
    lambda raw: b"", lambda raw: raw[:-1], lambda raw: raw + b"!", lambda raw: b"<html>not found</html>",
    lambda raw: raw[:500] + bytes([raw[500] ^ 1]) + raw[501:],
], ids=["empty", "last byte missing", "a byte too many", "html", "one bit wrong"])
def test_an_archive_of_another_md5_is_one_line_that_names_it_and_nothing_in_it_is_looked_at(
    archive_at_hand, monkeypatch, spoil,
):
    monkeypatch.setattr(tarfile, "open", None)
    archive_at_hand.write_bytes(spoil(archive_at_hand.read_bytes()))
    with pytest.raises(InputError, match=f"^JEPA_DATA: '{archive_at_hand}'.*{cifar10.MD5}") as caught:
        data.cifar10()
    assert "\n" not in str(caught.value)
    assert archive_at_hand.exists()


def test_a_tilde_in_jepa_data_is_the_home_folder(data_folder, cifar10_folder, cifar10_arrays, monkeypatch):
    monkeypatch.setenv("HOME", str(data_folder.parent))
    monkeypatch.setenv("USERPROFILE", str(data_folder.parent))
    monkeypatch.setenv("JEPA_DATA", "~/data")
    assert_holds(data.cifar10(), cifar10_arrays)


def test_the_home_of_somebody_unknown_is_an_error(monkeypatch):
    monkeypatch.setenv("JEPA_DATA", "~nobody-of-this-name/data")
    with pytest.raises(InputError, match=r"^JEPA_DATA: '~nobody-of-this-name/data'"):
        data.cifar10()


# ---------------------------------------------------------------------------------------- pickles


class Call:
    """Pickles as a call of `function(*arguments)`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


# What a pickle may ask to be called; each would leave a file, or is one step of leaving one.
CALLS = {
    "os.system": lambda path: Call(os.system, f"touch {path}"),
    "open": lambda path: Call(open, str(path), "w"),
    "eval": lambda path: Call(eval, f"open({str(path)!r}, 'w')"),
    "getattr": lambda path: Call(getattr, path, "touch"),
    "Path": lambda path: path,
    "Popen": lambda path: Call(subprocess.Popen, ["touch", str(path)]),
    "numpy.save": lambda path: Call(np.save, str(path), [1]),
    "numpy.load": lambda path: Call(np.load, str(path)),
    "torch": lambda path: torch.zeros(2),
    "a random generator": lambda path: np.random.default_rng(0),
}


@pytest.mark.fault("pickles that ask for code to be run")
@pytest.mark.parametrize("kind", CALLS)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_asks_for_anything_but_arrays_is_refused_in_one_line(batches_folder, tmp_path, kind, protocol):
    images = np.zeros((10, 3072), np.uint8)
    try:
        raw = pickle.dumps({b"data": images, b"labels": [0] * 10, b"more": CALLS[kind](tmp_path / "left")}, protocol)
    except TypeError:
        pytest.skip("not of this protocol")
    (batches_folder / "data_batch_3").write_bytes(raw)
    with pytest.raises(InputError, match=f"^JEPA_DATA: '{batches_folder}'.*it asks for ") as caught:
        data.cifar10()
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "left").exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("core", [b"numpy.core", b"numpy._core"])
def test_arrays_are_read_of_every_protocol_and_from_either_numpy(batches_folder, cifar10_arrays, protocol, core):
    for name, content in batches(cifar10_arrays, protocol).items():
        if protocol < 4:  # where names are lines of text, without a length
            content = content.replace(b"numpy._core", core).replace(b"numpy.core", core)
        (batches_folder / name).write_bytes(content)
    assert_holds(data.cifar10(), cifar10_arrays)


@pytest.mark.parametrize("labels", [[256] * 10, [-1] * 10, [0.5] * 10, [10] * 10], ids=["256", "-1", "a half", "10"])
def test_labels_of_a_batch_that_are_none_are_refused(batches_folder, labels):
    raw = pickle.dumps({b"data": np.zeros((10, 3072), np.uint8), b"labels": labels})
    (batches_folder / "test_batch").write_bytes(raw)
    with pytest.raises(InputError, match=f"^JEPA_DATA: '{batches_folder}'.*test_labels"):
        data.cifar10()


def test_an_npz_with_a_pickle_inside_is_refused(data_folder, cifar10_arrays):
    arrays = cifar10_arrays | {"test_labels": np.array([Call(os.system, "true")] * 20, dtype=object)}
    np.savez(data_folder / "cifar10.npz", **arrays)
    with pytest.raises(InputError, match="allow_pickle=False"):
        data.cifar10()


# ------------------------------------------------------------------------------------ from a shell


@pytest.mark.parametrize(("source", "where"), [
    ("cifar10_folder", "cifar10.npz"), ("batches_folder", "cifar-10-batches-py"),
    ("archive_at_hand", "cifar-10-python.tar.gz"),
])
def test_the_module_says_where_cifar10_lies(request, capsys, monkeypatch, data_folder, source, where):
    request.getfixturevalue(source)
    monkeypatch.setattr(sys, "argv", ["jepa_utils.data", "cifar10"])
    data.main()
    assert capsys.readouterr().out == f"CIFAR-10: 50 training and 20 test images in {data_folder / where}\n"


@pytest.mark.slow
def test_the_module_run_from_a_shell_without_cifar10_or_a_network_says_so_in_one_line(data_folder):
    command = [sys.executable, "-m", "jepa_utils.data", "cifar10"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: JEPA_DATA: '{data_folder}' was given")
    assert done.stderr.count("\n") == 1
