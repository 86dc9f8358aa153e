"""A collection of your own pictures: folders and zips as people have them, labels, and what is refused."""

import io
import os
import re
import struct
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from jepa_utils import collection, pictures, sample_pictures
from jepa_utils.collection import LEAST, collect
from jepa_utils.runtime import InputError


def paint(path, shade=100, size=(40, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (shade, 255 - shade, 50)).save(path)


def album(root, count=LEAST, folder=""):
    """So many pictures of mixed formats and sizes."""
    for i in range(count):
        paint(root / folder / f"{i}.{('png', 'jpg', 'webp', 'bmp')[i % 4]}", i % 200, (20 + i, 60 - i % 50))
    return root


def zipped(root, file, prefix=""):
    with zipfile.ZipFile(file, "w") as archive:
        for path in sorted(root.rglob("*")):
            archive.write(path, prefix + str(path.relative_to(root)))
    return file


def said(capsys):
    return [line for line in re.split(r"[\r\n]", capsys.readouterr().err) if line.startswith("pictures: ") and
            "|" not in line]


# ------------------------------------------------------------------------------------------ folders


def test_fifty_pictures_are_enough_and_forty_nine_are_one_line(tmp_path):
    assert len(collect(album(tmp_path / "a"), tmp_path).images) == 50
    with pytest.raises(InputError, match=r"^pictures: '49 in .*50 or more that can be read$") as caught:
        collect(album(tmp_path / "b", 49), tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", ["~nobody-here/pictures", "x" * 300, "no/such/folder", "nul\0byte", "", None],
                         ids=["user", "long", "missing", "nul", "empty", "none"])
def test_a_path_that_leads_nowhere_is_one_line(path, tmp_path):
    with pytest.raises(InputError, match=r"^pictures: .* was given; accepted: a folder of pictures") as caught:
        collect(path, tmp_path)
    assert "\n" not in str(caught.value)


def test_pictures_without_a_label_stay_and_labels_are_the_subfolders(tmp_path):
    for folder, count in (("dogs", 10), ("cats/2023", 15), ("unlabeled/x/y", 20), ("", 12)):
        album(tmp_path, count, folder)
    read = collect(tmp_path, tmp_path / "unpacked")
    assert read.classes == ("cats", "dogs")
    assert (read.labels + 1).bincount().tolist() == [32, 15, 10]
    assert (read.images.dtype, read.images.shape) == (torch.uint8, (57, 3, 32, 32))
    for file, label, image in zip(read.files, read.labels, read.images, strict=True):
        assert label == {"dogs": 1, "cats": 0}.get(file.relative_to(tmp_path).parts[0], -1)
        assert torch.equal(image, pictures.read(file))


def test_subfolders_can_be_no_labels_and_a_single_class_is_none(tmp_path):
    for folder in ("2023", "2024"):
        album(tmp_path / "years", 30, folder)
    album(tmp_path / "one", 60, "dogs")
    album(tmp_path / "one", 1, "")
    assert collect(tmp_path / "years", tmp_path, labels=False).classes == ()
    assert collect(tmp_path / "one", tmp_path).labels.unique().tolist() == [-1]


def test_a_folder_around_the_folder_is_entered(tmp_path):
    for name in "ab":
        album(tmp_path / "outer" / "inner", 30, name)
    (tmp_path / "outer" / ".DS_Store").write_bytes(b"?")
    assert collect(tmp_path, tmp_path).classes == ("a", "b")


def test_a_damaged_picture_is_named_and_the_others_are_read(tmp_path, capsys):
    album(tmp_path / "a", 52)
    for i in (3, 7, 11):
        next((tmp_path / "a").glob(f"{i}.*")).write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"^pictures: '49 in"):
        collect(tmp_path / "a", tmp_path)
    album(tmp_path / "a", 5, "more")  # which are a class, and the others have none
    capsys.readouterr()
    assert len(collect(tmp_path / "a", tmp_path).files) == 54
    (line,) = said(capsys)
    assert re.search(r"^pictures: skipped 3 that cannot be read \(11.bmp: it is damaged.*3.bmp: .* and 1 more\)$",
                     line)


def test_of_many_a_fixed_sample_is_taken(tmp_path, capsys):
    for name in "ab":
        album(tmp_path / "x", 60, name)
    one, two = (collect(tmp_path / "x", tmp_path, most=70) for _ in range(2))
    assert len(one.files) == 70
    assert one.files == two.files
    assert one.labels.bincount().min() > 20
    assert "pictures: 70 of 120 taken, drawn at random" in said(capsys)


@pytest.mark.parametrize("most", [-5, 0, 70.5, "70", True])
def test_a_sample_of_no_number_of_pictures_is_refused(tmp_path, most):
    with pytest.raises(InputError, match=r"^most: .* a whole number of at least 1$"):
        collect(album(tmp_path / "x"), tmp_path, most=most)


@pytest.mark.parametrize("path", ["", None, "missing", "missing.zip"])
def test_what_is_not_there_is_one_line(tmp_path, path):
    with pytest.raises(InputError, match="a folder of pictures") as caught:
        collect(path and tmp_path / path, tmp_path)
    assert "\n" not in str(caught.value)


def test_in_a_folder_of_classes_the_strict_reader_still_passes_over_what_lies_beside(tmp_path):
    album(tmp_path, 2, "a")
    album(tmp_path, 3)
    assert set(pictures.find(tmp_path)) == {"a"}
    assert {name: len(files) for name, files in pictures.find(tmp_path, beside=True).items()} == {
        "a": 2, "unlabeled": 3}


# --------------------------------------------------------------------------------------------- zips


@pytest.mark.parametrize("prefix", ["", "My Photos/", "a/b/"])
def test_a_zip_is_the_folder_that_it_holds(tmp_path, prefix):
    for name in ("dogs", "cats/deep"):
        album(tmp_path / "x", 30, name)
    plain = collect(tmp_path / "x", tmp_path)
    read = collect(zipped(tmp_path / "x", tmp_path / "x.ZIP", prefix), tmp_path / "unpacked")
    assert (read.classes, read.labels.tolist()) == (plain.classes, plain.labels.tolist())
    assert torch.equal(read.images, plain.images)
    again = collect(tmp_path / "x.ZIP", tmp_path / "unpacked")
    assert torch.equal(again.images, read.images)  # unpacked twice, read once


def test_two_zips_of_one_name_are_not_mixed(tmp_path):
    zips = [zipped(album(tmp_path / f"{count} pictures", count), tmp_path / f"{count}.zip") for count in (60, 50)]
    first, second = (collect(file.replace(tmp_path / "x.zip"), tmp_path / "unpacked") for file in zips)
    assert (len(first.files), len(second.files)) == (60, 50)
    assert all(file.exists() for file in first.files + second.files)


def test_what_macos_adds_to_a_zip_is_no_class(tmp_path):
    album(tmp_path / "x", 60)
    (tmp_path / "x" / "__MACOSX").mkdir()
    (tmp_path / "x" / "__MACOSX" / "._0.png").write_bytes(b"?")
    assert len(collect(zipped(tmp_path / "x", tmp_path / "x.zip"), tmp_path / "unpacked").files) == 60
    assert not list((tmp_path / "unpacked").rglob("__MACOSX"))


@pytest.mark.fault("zips: damaged, locked, hostile")
@pytest.mark.parametrize("name", ["../x.png", "a/../../x.png", "/x.png", "..\\x.png", "C:\\x.png", "C:/x.png"])
def test_a_zip_that_would_write_elsewhere_is_refused_and_nothing_is_written(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("good.png", b"?")
        archive.writestr(name, b"?")
    with pytest.raises(InputError, match="stay in its folder") as caught:
        collect(tmp_path / "x.zip", tmp_path / "deep" / "unpacked")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("*.png"))


def locked(raw):
    """The zip with every file marked as encrypted."""
    for start, at in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        for found in [m.start() for m in re.finditer(re.escape(start), raw)]:
            flags, = struct.unpack_from("<H", raw, found + at)
            raw = raw[: found + at] + struct.pack("<H", flags | 1) + raw[found + at + 2 :]
    return raw


def spoiled(raw):
    """The zip with a byte of its first file changed, so that its checksum is wrong."""
    return raw[:60] + bytes([raw[60] ^ 255]) + raw[61:]


@pytest.mark.fault("zips: damaged, locked, hostile")
@pytest.mark.parametrize("spoil", [lambda raw: b"", lambda raw: b"no zip", lambda raw: raw[: len(raw) // 2],
                                   spoiled, locked], ids=["empty", "text", "half", "checksum", "locked"])
def test_a_bad_zip_is_one_line_that_names_it(tmp_path, spoil):
    album(tmp_path / "x", 50)
    file = zipped(tmp_path / "x", tmp_path / "x.zip")
    file.write_bytes(spoil(file.read_bytes()))
    expected = rf"^pictures: '{re.escape(str(file))}' .*a zip that can be unpacked \(\S"
    with pytest.raises(InputError, match=expected) as caught:
        collect(file, tmp_path / "unpacked")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("unpacked/*"))


@pytest.mark.fault("zips: damaged, locked, hostile")
def test_a_zip_that_would_fill_the_disk_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(collection, "UNPACKED", 2**30 // 1024)
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(2**21))
    with pytest.raises(InputError, match="a zip of at most"):
        collect(tmp_path / "x.zip", tmp_path / "unpacked")
    assert not (tmp_path / "unpacked").exists()


def test_uploaded_files_are_kept_by_their_last_name_and_a_single_zip_is_itself(tmp_path):
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "PNG")
    folder = collection.received({"../a.png": picture.getvalue(), "b.png": picture.getvalue()}, tmp_path / "up")
    assert sorted(os.listdir(folder)) == ["a.png", "b.png"]
    assert collection.received({"x.zip": b"?"}, tmp_path / "other") == tmp_path / "other" / "x.zip"


# --------------------------------------------------------------------------------------- the sample


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    root = tmp_path_factory.mktemp("sample")
    return root, sample_pictures.write(root, 60, 40, 8, 8, seed=1)


def test_the_sample_is_a_folder_as_people_have_them(sample, capsys):
    root, planted = sample
    read = collect(root, root)
    assert len(read.files) == 60 + 40 + 8 + 8
    assert (read.labels == -1).sum() == 60 + 8 + 8
    assert set(read.classes) <= set(sample_pictures.NAMES)
    assert {file.suffix for file in read.files} == {".jpg", ".png", ".webp", ".bmp"}
    shapes = set()
    for file in read.files[:40]:
        with Image.open(file) as picture:
            shapes.add(picture.size)
    assert len(shapes) > 20
    lines = said(capsys)
    assert any("skipped 1 file that is no picture" in line for line in lines)
    assert any("broken.jpg" in line for line in lines)


def test_copies_are_other_files_that_look_like_their_originals(sample):
    root, planted = sample
    files = [file for file in collect(root, root).files if file not in planted.odd]
    shown = {file: pictures.read(file).double().numpy().ravel() for file in files}
    assert len(planted.copies) == len(set(planted.copies.values())) == 8
    for copy, original in planted.copies.items():
        assert copy.read_bytes() != original.read_bytes()
        alike = {file: np.corrcoef(shown[copy], pixels)[0, 1] for file, pixels in shown.items() if file != copy}
        assert sorted(alike, key=alike.get)[-3:].count(original) == 1


def test_odd_ones_differ_from_each_other_and_a_seed_repeats(sample, tmp_path):
    root, planted = sample
    shown = torch.stack([pictures.read(file) for file in planted.odd]).float().flatten(1)
    assert torch.pdist(shown).min() > 500
    again = sample_pictures.write(tmp_path, 60, 40, 8, 8, seed=1)
    for one, two in zip(planted.odd + tuple(planted.copies), again.odd + tuple(again.copies), strict=True):
        assert one.relative_to(root) == two.relative_to(tmp_path)
        assert one.read_bytes() == two.read_bytes()
