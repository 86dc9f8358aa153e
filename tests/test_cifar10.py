import hashlib
import io
import pickle
import socket
import subprocess
import sys
import tarfile
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import pytest
import torch

from jepa_utils import cifar10, data
from jepa_utils.runtime import InputError


def batches(arrays):
    """The six files of torchvision's folder, by name."""
    images, labels = arrays["train_images"].reshape(5, -1, 3072), arrays["train_labels"].reshape(5, -1)
    parts = {f"data_batch_{i + 1}": (images[i], labels[i]) for i in range(5)}
    parts["test_batch"] = arrays["test_images"].reshape(-1, 3072), arrays["test_labels"]
    return {name: pickle.dumps({b"data": x, b"labels": y.tolist()}) for name, (x, y) in parts.items()}


@pytest.fixture
def batches_folder(data_folder, cifar10_arrays):
    folder = data_folder / "cifar-10-batches-py"
    folder.mkdir()
    for name, content in batches(cifar10_arrays).items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture(scope="session")
def archive(cifar10_arrays):
    """The bytes of a tiny cifar-10-python.tar.gz."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for name, content in batches(cifar10_arrays).items():
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


def assert_holds(dataset, arrays):
    for key, array in arrays.items():
        assert torch.equal(getattr(dataset, key), torch.from_numpy(array).to(torch.int64 if "labels" in key else torch.uint8))
        assert getattr(dataset, key).dtype == (torch.int64 if "labels" in key else torch.uint8)


@pytest.mark.parametrize("source", ["cifar10_folder", "batches_folder"])
def test_cifar10_is_read_from_one_file_or_from_torchvisions_folder(request, cifar10_arrays, source):
    request.getfixturevalue(source)
    dataset = data.load("cifar10")
    assert_holds(dataset, cifar10_arrays)
    assert dataset.classes[3] == "cat"


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


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


@pytest.mark.parametrize("changes", [
    {"train_images": np.zeros((50, 32, 32, 3), np.uint8)}, {"test_images": np.zeros((20, 3, 32, 32), np.float32)},
    {"train_labels": np.zeros(49, np.uint8)}, {"train_labels": np.full(50, 10, np.uint8)}, {"test_labels": np.full(20, 0.5)},
    {"train_labels": np.full(50, -1)}, {"train_images": np.zeros((0, 3, 32, 32), np.uint8), "train_labels": np.zeros(0, np.uint8)},
    {"test_labels": None},
], ids=["channels last", "float images", "a label too few", "label 10", "float labels", "label -1", "no images", "key missing"])
def test_an_npz_of_something_else_is_one_error_that_names_the_file(data_folder, cifar10_arrays, changes):
    np.savez(data_folder / "cifar10.npz", **{k: v for k, v in (cifar10_arrays | changes).items() if v is not None})
    with pytest.raises(InputError, match=rf"^JEPA_DATA: '{data_folder / 'cifar10.npz'}'"):
        data.cifar10()


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


# --------------------------------------------------------------------------------------- download


@contextmanager
def mirror(body=b"", kind="good"):
    """A web server with one file; yields its address and the list of the Range headers it was sent."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            wanted = self.headers.get("Range")
            asked.append(wanted)
            start = int(wanted[len("bytes="):-1]) if wanted and kind != "no ranges" else 0
            if kind == "garbage":  # the log-in page of a hotel, say: no HTTP at all
                return self.wfile.write(b"<html>please log in</html>\r\n\r\n")
            if kind == "503" or start >= len(body):
                return self.send_error(503 if kind == "503" else 416)
            self.send_response(206 if start else 200)
            if kind == "cut while chunked":
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                return self.wfile.write(b"%x\r\n" % len(body) + body[: len(body) // 2])
            self.send_header("Content-Length", str(len(body) - start))
            self.end_headers()
            return self.wfile.write(body[start : len(body) // 2 if kind == "cut" else None])

        def log_message(self, *_):
            pass

    Handler.protocol_version = "HTTP/1.1" if kind == "cut while chunked" else "HTTP/1.0"
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, args=(0.01,))
    if kind == "refused":
        server.server_close()
    else:
        thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/cifar-10-python.tar.gz", asked
    finally:
        if thread.is_alive():
            server.shutdown()
            server.server_close()
            thread.join()


@pytest.fixture
def online(monkeypatch, archive, data_folder):
    """Lets the network be used, but only mirrors on this machine: `online(*addresses)` names them."""
    monkeypatch.delenv("JEPA_OFFLINE")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(cifar10, "MD5", hashlib.md5(archive).hexdigest())
    return lambda *addresses: monkeypatch.setattr(cifar10, "MIRRORS", addresses)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("kind", ["refused", "503", "garbage", "cut", "cut while chunked"])
def test_where_the_first_mirror_fails_the_second_is_taken(online, archive, data_folder, cifar10_arrays, kind):
    with mirror(archive, kind) as (first, _), mirror(archive) as (second, asked):
        online(first, second)
        assert_holds(data.cifar10(), cifar10_arrays)
    assert asked == [f"bytes={len(archive) // 2}-"] if kind == "cut" else len(asked) == 1
    assert names(data_folder) == ["cifar10.npz"]
    assert_holds(data.cifar10(), cifar10_arrays)  # from the file: the mirrors are gone


@pytest.mark.parametrize("kind", ["good", "no ranges"])
@pytest.mark.parametrize("share", [0.3, 1, 1.2], ids=["part", "whole", "too long"])
def test_a_partial_download_is_resumed_whatever_the_server_makes_of_it(online, archive, data_folder, cifar10_arrays, kind, share):
    have = int(share * len(archive))
    (data_folder / "cifar-10-python.tar.gz.part").write_bytes((archive + archive)[:have])
    with mirror(archive, kind) as (first, asked), mirror(archive) as (second, _):
        online(first, second)
        assert_holds(data.cifar10(), cifar10_arrays)
    assert asked == [f"bytes={have}-"]
    assert names(data_folder) == ["cifar10.npz"]


def test_a_download_with_the_wrong_md5_is_refused_and_leaves_nothing(online, archive, data_folder):
    with mirror(archive[:-1] + b"!") as (first, _), mirror(b"<html>moved</html>") as (second, _):
        online(first, second)
        with pytest.raises(InputError, match=rf"(?s)^JEPA_DATA: '{data_folder}'.*{first}: md5 .*{second}: md5 "):
            data.cifar10()
    assert names(data_folder) == []


def test_a_connection_cut_midway_leaves_a_part_that_the_next_run_resumes(online, archive, data_folder, cifar10_arrays):
    with mirror(archive, "cut") as (address, _):
        online(address)
        with pytest.raises(InputError, match="closed early; run again to resume"):
            data.cifar10()
    assert names(data_folder) == ["cifar-10-python.tar.gz.part"]
    assert (data_folder / "cifar-10-python.tar.gz.part").read_bytes() == archive[: len(archive) // 2]
    with mirror(archive) as (address, asked):
        online(address)
        assert_holds(data.cifar10(), cifar10_arrays)
    assert asked == [f"bytes={len(archive) // 2}-"]


def test_a_full_disk_leaves_no_half_written_npz(online, archive, data_folder, monkeypatch):
    def full_disk(file, **_):
        file.write(b"PK half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full_disk)
    with mirror(archive) as (address, _):
        online(address)
        with pytest.raises(OSError, match="No space left"):
            data.cifar10()
    assert not [name for name in names(data_folder) if "npz" in name]


class Opened(Exception):
    """Someone opened a socket."""


@pytest.mark.parametrize(("setting", "error"), [("1", InputError), ("0", Opened)])  # "0" shows that the trap works
def test_offline_opens_no_socket(online, data_folder, monkeypatch, setting, error):
    def opened(*_, **__):
        raise Opened("JEPA_OFFLINE is set, or is it?")

    online("http://127.0.0.1:9/cifar-10-python.tar.gz")
    monkeypatch.setenv("JEPA_OFFLINE", setting)
    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, opened)
    with pytest.raises(error, match="JEPA_OFFLINE is set"):
        data.cifar10()


def test_a_data_folder_that_cannot_be_one_is_an_error_that_names_it(online, data_folder, monkeypatch):
    (data_folder / "file").write_text("not a folder", encoding="utf-8")
    monkeypatch.setenv("JEPA_DATA", str(data_folder / "file"))
    with pytest.raises(InputError, match=rf"^JEPA_DATA: '{data_folder / 'file'}'"):
        data.cifar10()


@pytest.mark.parametrize(("source", "where"), [("cifar10_folder", "cifar10.npz"), ("batches_folder", "cifar-10-batches-py")])
def test_the_module_says_where_cifar10_lies(request, capsys, monkeypatch, data_folder, source, where):
    request.getfixturevalue(source)
    monkeypatch.setattr(sys, "argv", ["jepa_utils.data", "cifar10"])
    data.main()
    assert capsys.readouterr().out == f"CIFAR-10: 50 training and 20 test images in {data_folder / where}\n"


@pytest.mark.slow
def test_the_module_run_from_a_shell_without_cifar10_or_a_network_says_so_in_one_line(data_folder):
    done = subprocess.run([sys.executable, "-m", "jepa_utils.data", "cifar10"], capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: JEPA_DATA: '{data_folder}' was given")
    assert done.stderr.count("\n") == 1
