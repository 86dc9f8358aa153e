"""CIFAR-10 over a network that fails in every way we know of: an error or the right arrays, never a damaged cache."""

import errno
import hashlib
import os
import re
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from server import BAD, GOOD, WAITED_FOR, assert_holds, batches, cut, mirror, names, packed

from jepa_utils import cifar10, data
from jepa_utils.runtime import InputError

PART = "cifar-10-python.tar.gz.part"


@pytest.fixture(scope="session")
def archive(cifar10_arrays):
    return packed(batches(cifar10_arrays))


@pytest.fixture
def online(monkeypatch, archive, data_folder):
    """Lets the network be used, but only mirrors on this machine: `online(*addresses)` names them."""
    monkeypatch.delenv("JEPA_OFFLINE")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(cifar10, "MD5", hashlib.md5(archive).hexdigest())
    return lambda *addresses: monkeypatch.setattr(cifar10, "MIRRORS", addresses)


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(cifar10, "TIMEOUT", 0.5)
    monkeypatch.setattr(cifar10, "SLOWEST", 1_000_000)


@pytest.mark.fault("servers: slow, redirecting, cut, wrong, absent")
@pytest.mark.parametrize("kind", GOOD)
def test_the_archive_is_had_from_a_server_of_any_kind(online, archive, data_folder, cifar10_arrays, kind):
    with mirror(archive, GOOD[kind]) as (address, _):
        online(address)
        assert_holds(data.cifar10(), cifar10_arrays)
    assert names(data_folder) == ["cifar10.npz"]
    assert_holds(data.cifar10(), cifar10_arrays)  # from the file: the mirror is gone


@pytest.mark.fault("servers: slow, redirecting, cut, wrong, absent")
@pytest.mark.parametrize("kind", BAD)
def test_where_the_first_mirror_fails_the_second_is_taken(
    request, online, archive, data_folder, cifar10_arrays, kind,
):
    if kind in WAITED_FOR:
        request.getfixturevalue("impatient")
    started = time.monotonic()
    with mirror(archive, BAD[kind]) as (first, _), mirror(archive) as (second, asked):
        online(first, second)
        assert_holds(data.cifar10(), cifar10_arrays)
    assert time.monotonic() - started < 5
    assert asked == [f"bytes={len(archive) // 2}-"] if kind in ("cut", "stalling") else len(asked) in (1, 2)
    assert names(data_folder) == ["cifar10.npz"]


@pytest.mark.slow
@pytest.mark.fault("servers: slow, redirecting, cut, wrong, absent")
@pytest.mark.parametrize("kind", BAD)
def test_where_all_mirrors_fail_one_line_says_why_and_where_to_put_the_file(
    request, online, archive, data_folder, kind,
):
    if kind in WAITED_FOR:
        request.getfixturevalue("impatient")
    with mirror(archive, BAD[kind]) as (address, _):
        online(address)
        with pytest.raises(InputError) as caught:
            data.cifar10()
    message = str(caught.value)
    assert re.match(rf"JEPA_DATA: '{data_folder}' was given; .*{address}: \S", message)
    assert message.endswith(f"or put cifar-10-python.tar.gz or cifar10.npz into {data_folder}")
    assert "\n" not in message
    assert set(names(data_folder)) <= {PART}


@pytest.mark.fault("servers: slow, redirecting, cut, wrong, absent")
@pytest.mark.parametrize("kind", ["plain", "without ranges", "another range than asked for", "without a length"])
@pytest.mark.parametrize("left", ["part", "whole", "too long", "another file"])
def test_a_partial_download_is_resumed_whatever_it_and_the_server_are(
    online, archive, data_folder, cifar10_arrays, left, kind,
):
    size = len(archive)
    contents = {"part": archive[: size // 3], "whole": archive, "too long": archive + b"!", "another file": b"?" * 500}
    (data_folder / PART).write_bytes(contents[left])
    with mirror(archive, GOOD[kind]) as (address, asked):
        online(address)
        assert_holds(data.cifar10(), cifar10_arrays)
    assert asked[0] == f"bytes={len(contents[left])}-"
    assert asked[1:] in ([], [None])  # once more, from the beginning, where what lay there was of no use
    assert names(data_folder) == ["cifar10.npz"]


def test_a_connection_cut_midway_leaves_a_part_that_the_next_run_resumes(online, archive, data_folder, cifar10_arrays):
    with mirror(archive, cut) as (address, _):
        online(address)
        with pytest.raises(InputError, match="closed early; run again to resume"):
            data.cifar10()
    assert names(data_folder) == [PART]
    assert (data_folder / PART).read_bytes() == archive[: len(archive) // 2]
    with mirror(archive) as (address, asked):
        online(address)
        assert_holds(data.cifar10(), cifar10_arrays)
    assert asked == [f"bytes={len(archive) // 2}-"]


def test_a_server_that_never_ends_does_not_fill_the_disk(online, archive, data_folder, monkeypatch):
    monkeypatch.setattr(cifar10, "LARGEST", 10 * len(archive))

    def endless(h, body, start):
        h.head()
        while not h.server.over.is_set():
            h.send(body)

    sizes = []
    with mirror(archive, endless) as (address, _), monkeypatch.context() as patch:
        online(address)
        patch.setattr(cifar10, "_md5", lambda path: sizes.append(path.stat().st_size))
        with pytest.raises(InputError, match="md5"):
            data.cifar10()
    assert len(sizes) == 1
    assert sizes[0] <= 10 * len(archive)
    assert names(data_folder) == []


FETCH = """
import sys
from jepa_utils import cifar10
cifar10.MIRRORS, cifar10.MD5 = (sys.argv[1],), sys.argv[2]
print(cifar10.arrays()["train_images"].sum())
"""


@pytest.mark.slow
def test_of_two_processes_at_once_one_fetches_and_the_other_waits(online, archive, data_folder, cifar10_arrays):
    def slowly(h, body, start):
        h.head(Content_Length=len(body))
        h.send(*(body[i : i + len(body) // 10] for i in range(0, len(body), len(body) // 10)), pause=0.1)

    with mirror(archive, slowly) as (address, asked):
        command = [sys.executable, "-c", FETCH, address, hashlib.md5(archive).hexdigest()]
        both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        said = [process.communicate(timeout=100)[0] for process in both]
    assert said == [f"{cifar10_arrays['train_images'].sum()}\n"] * 2
    assert asked == [None]
    assert names(data_folder) == ["cifar10.npz"]


def test_another_process_is_waited_for_but_not_for_ever(online, data_folder, monkeypatch):
    monkeypatch.setattr(cifar10, "PATIENCE", 0.1)
    online("http://127.0.0.1:9/cifar-10-python.tar.gz")
    with (
        cifar10.FileLock(data_folder / ".cifar10.lock"),
        pytest.raises(InputError, match=r"^JEPA_DATA: .*another process has been fetching it for 0\.1 s"),
    ):
        data.cifar10()


# Where writing fails, and what a full or forbidden disk says there.
DISKS = {
    "read-only folder": ("jepa_utils.cifar10.FileLock.acquire", errno.EROFS),
    "folder of another user": ("jepa_utils.cifar10.FileLock.acquire", errno.EACCES),
    "full when the folder is made": ("pathlib.Path.mkdir", errno.ENOSPC),
    "full when the archive is named": ("os.replace", errno.ENOSPC),
    "full when the arrays are saved": ("numpy.savez", errno.ENOSPC),
    "above the quota when the arrays are saved": ("numpy.savez", errno.EDQUOT),
    "archive that cannot be removed": ("pathlib.Path.unlink", errno.EACCES),
}


@pytest.mark.fault("a disk without room, or a place that cannot be written")
@pytest.mark.parametrize("kind", DISKS)
def test_a_disk_that_cannot_be_written_is_one_line_and_nothing_is_damaged(
    online, archive, data_folder, cifar10_arrays, monkeypatch, kind,
):
    place, number = DISKS[kind]

    def fails(*_, **__):
        raise OSError(number, os.strerror(number))

    with mirror(archive) as (address, _):
        online(address)
        with monkeypatch.context() as patch:
            patch.setattr(place, fails)
            with pytest.raises(InputError, match=rf"^JEPA_DATA: '{data_folder}'.*{os.strerror(number)}") as caught:
                data.cifar10()
        assert "\n" not in str(caught.value)
        assert_holds(data.cifar10(), cifar10_arrays)  # once the disk is well


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a file of Linux")
def test_a_disk_that_fills_up_midway_is_one_line(online, archive, data_folder):
    (data_folder / PART).symlink_to("/dev/full")
    with mirror(archive) as (address, _):
        online(address)
        with pytest.raises(InputError, match=rf"^JEPA_DATA: '{data_folder}'.*No space left on device"):
            data.cifar10()


def test_a_data_folder_that_cannot_be_one_is_an_error_that_names_it(online, data_folder, monkeypatch):
    (data_folder / "file").write_text("not a folder", encoding="utf-8")
    monkeypatch.setenv("JEPA_DATA", str(data_folder / "file"))
    with pytest.raises(InputError, match=rf"^JEPA_DATA: '{data_folder / 'file'}'"):
        data.cifar10()


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


def test_offline_nothing_is_written_either(data_folder):
    with pytest.raises(InputError, match=r"or put cifar-10-python.tar.gz or cifar10.npz into "):
        data.cifar10()
    assert names(data_folder) == []


@pytest.mark.parametrize("name", ["cifar10.npz", "cifar-10-batches-py", "cifar-10-python.tar.gz"])
def test_what_is_at_hand_is_never_asked_for(online, archive, data_folder, cifar10_arrays, name):
    if name == "cifar10.npz":
        np.savez(data_folder / name, **cifar10_arrays)
    elif name == "cifar-10-batches-py":
        (data_folder / name).mkdir()
        for batch, content in batches(cifar10_arrays).items():
            (data_folder / name / batch).write_bytes(content)
    else:
        (data_folder / name).write_bytes(archive)
    with mirror(archive) as (address, asked):
        online(address)
        assert_holds(data.cifar10(), cifar10_arrays)
    assert asked == []
    assert names(data_folder) == [name]
