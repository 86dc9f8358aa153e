import io
import os
import re
import struct
import sys
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image, features

from jepa_utils import data, pictures
from jepa_utils.runtime import InputError

COLOR = (200, 80, 40)
GRAY = 200


def image(mode="RGB", size=(48, 48), color=COLOR):
    return Image.new("RGB", size, color).convert(mode, palette=Image.Palette.ADAPTIVE)


def paint(path, color=COLOR, mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    image(mode, color=color).save(path)


def noise(size=40):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8))


def gray_array(value, dtype):
    return Image.fromarray(np.full((40, 40), value, dtype))


# ---------------------------------------------------------------------------------- every kind


def plain(mode="RGB", **options):
    return lambda path: image(mode, color=COLOR if mode not in ("L", "I;16") else (GRAY,) * 3).save(path, **options)


def of(picture, **options):
    return lambda path: picture.save(path, **options)


def transparent_palette(path):
    """Half of it opaque, half transparent, where the palette holds some other colour."""
    picture = Image.new("P", (48, 48))
    picture.putpalette([*COLOR, 0, 0, 255])
    picture.paste(1, (0, 24, 48, 48))
    picture.save(path, transparency=1)


def animated(path):
    image().save(path, save_all=True, append_images=[image(color=(0, 0, 255))])


def behind_suffix(kind):
    """A picture of another format than its suffix says."""
    return lambda path: image().save(path, format=kind)


# File name, what writes it, the colour that must be read in its upper half.
KINDS = {
    "png": ("a.png", plain(), COLOR),
    "PNG in capitals": ("a.PNG", plain(), COLOR),
    "jpg": ("a.jpg", plain(), COLOR),
    "JPEG in capitals": ("a.JPEG", plain(), COLOR),
    "progressive jpeg": ("a.jpg", plain(progressive=True), COLOR),
    "jfif": ("a.jfif", plain(), COLOR),
    "bmp": ("a.bmp", plain(), COLOR),
    "gif": ("a.gif", plain("P"), COLOR),
    "tif": ("a.tif", plain(), COLOR),
    "tiff": ("a.TIFF", plain(compression="tiff_lzw"), COLOR),
    "webp": ("a.webp", plain(lossless=True), COLOR),
    "lossy webp": ("a.WebP", plain(), COLOR),
    "ppm": ("a.ppm", plain(), COLOR),
    "pgm": ("a.pgm", plain("L"), (GRAY,) * 3),
    "pcx": ("a.pcx", plain(), COLOR),
    "tga": ("a.tga", plain(), COLOR),
    "ico": ("a.ico", plain(), COLOR),
    "dds": ("a.dds", plain(), COLOR),
    "qoi": ("a.qoi", of(image()), COLOR),
    "sgi": ("a.sgi", plain(), COLOR),
    "png behind .jpg": ("a.jpg", behind_suffix("PNG"), COLOR),
    "webp behind .png": ("a.png", behind_suffix("WEBP"), COLOR),
    "gray": ("a.png", plain("L"), (GRAY,) * 3),
    "gray jpeg": ("a.jpg", plain("L"), (GRAY,) * 3),
    "palette": ("a.png", plain("P"), COLOR),
    "RGBA": ("a.png", plain("RGBA"), COLOR),
    "LA": ("a.png", of(Image.new("LA", (48, 48), (GRAY, 255))), (GRAY,) * 3),
    "CMYK jpeg": ("a.jpg", plain("CMYK"), COLOR),
    "CMYK tiff": ("a.tif", plain("CMYK"), COLOR),
    "YCbCr tiff": ("a.tif", plain("YCbCr"), COLOR),
    "1 bit, white": ("a.png", of(Image.new("1", (48, 48), 1)), (255,) * 3),
    "1 bit, black": ("a.png", of(Image.new("1", (48, 48), 0)), (0,) * 3),
    "1 bit tiff by fax": ("a.tif", of(Image.new("1", (48, 48), 1), compression="group4"), (255,) * 3),
    "wholly transparent": ("a.png", of(Image.new("RGBA", (48, 48), (0, 0, 0, 0))), (255,) * 3),
    "half transparent black": ("a.png", of(Image.new("RGBA", (48, 48), (0, 0, 0, 128))), (127,) * 3),
    "half transparent gray": ("a.png", of(Image.new("LA", (48, 48), (0, 128))), (127,) * 3),
    "palette with transparency, opaque half": ("a.png", transparent_palette, COLOR),
    "gif with transparency, opaque half": ("a.gif", transparent_palette, COLOR),
    "one colour transparent": ("a.png", of(image(), transparency=COLOR), (255,) * 3),
    "16 bits png": ("a.png", of(gray_array(200 * 257, np.uint16)), (GRAY,) * 3),
    "16 bits tiff": ("a.tif", of(gray_array(200 * 257, np.uint16)), (GRAY,) * 3),
    "16 bits tiff, big-endian": ("a.tif", of(gray_array(200 * 257, ">u2")), (GRAY,) * 3),
    "16 bits pgm": ("a.pgm", of(gray_array(200 * 257, np.int32)), (GRAY,) * 3),
    "16 bits, dark": ("a.png", of(gray_array(2 * 257, np.uint16)), (2,) * 3),
    "32 bits tiff of 16": ("a.tif", of(gray_array(200 * 257, np.int32)), (GRAY,) * 3),
    "32 bits tiff, constant, above 16": ("a.tif", of(gray_array(10**8, np.int32)), (255,) * 3),
    "float tiff to 1": ("a.tif", of(gray_array(200 / 255, np.float32)), (GRAY,) * 3),
    "float tiff to 255": ("a.tif", of(gray_array(200, np.float32)), (GRAY,) * 3),
    "float tiff, not finite": ("a.tif", of(gray_array(np.nan, np.float32)), (0,) * 3),
    "animated gif, first frame": ("a.gif", animated, COLOR),
    "animated webp, first frame": ("a.webp", animated, COLOR),
    "animated png, first frame": ("a.apng", lambda path: image().save(
        path, format="PNG", save_all=True, append_images=[image(color=(0, 0, 255))]), COLOR),
    "tiff of two pages, first": ("a.tif", animated, COLOR),
    "mpo, first of a pair": ("a.mpo", animated, COLOR),
    "1 x 1": ("a.png", of(image(size=(1, 1))), COLOR),
    "1 x 3000": ("a.png", of(image(size=(1, 3000))), COLOR),
    "3000 x 1": ("a.png", of(image(size=(3000, 1))), COLOR),
}
if features.check("avif"):
    KINDS["avif"] = ("a.avif", plain(quality=95), COLOR)
if features.check("jpg_2000"):
    KINDS["jpeg 2000"] = ("a.jp2", plain(), COLOR)


@pytest.mark.fault("pictures of every kind, odd metadata, damage")
@pytest.mark.parametrize("kind", KINDS)
def test_pictures_of_every_kind_are_found_and_read_in_their_colours(tmp_path, kind):
    name, write, color = KINDS[kind]
    write(tmp_path / name)
    read = data.folder(tmp_path).train_images
    assert (read.shape, read.dtype) == ((1, 3, 32, 32), torch.uint8)
    assert (read[0, :, :12].int() - torch.tensor(color)[:, None, None]).abs().max() <= 4  # lossy formats round


def test_sixteen_bits_a_pixel_keep_their_proportions(tmp_path):
    ramp = np.arange(0, 65536, 64, dtype=np.uint16).reshape(32, 32)
    Image.fromarray(ramp).save(tmp_path / "a.png")
    assert (pictures.read(tmp_path / "a.png")[0].numpy() - ramp / 257).__abs__().max() <= 0.5


@pytest.mark.parametrize(("low", "high", "black", "white"), [
    (0, 1, 0, 1), (0, 0.5, 0, 1), (0, 200, 0, 255), (0, 65535, 0, 65535), (-1, 1, -1, 1), (0, 1e6, 0, 1e6),
])
def test_floats_are_spread_over_the_range_that_holds_them(tmp_path, low, high, black, white):
    ramp = np.linspace(low, high, 1024, dtype=np.float32).reshape(32, 32)
    Image.fromarray(ramp).save(tmp_path / "a.tif")
    expected = (ramp.astype(np.float64) - black) / (white - black) * 255
    assert np.abs(pictures.read(tmp_path / "a.tif")[0].numpy() - expected).max() <= 0.51


# How EXIF says that a camera was held, and what sets the picture upright (rows, columns, colours).
ORIENTATIONS = {
    1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1), 6: lambda a: np.rot90(a, -1), 7: lambda a: a[::-1, ::-1].swapaxes(0, 1), 8: np.rot90,
}


@pytest.mark.fault("pictures of every kind, odd metadata, damage")
@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.webp"])
def test_photographs_are_set_upright(tmp_path, name, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    noise(32).save(tmp_path / name, exif=exif, **({"lossless": True} if name == "a.webp" else {}))
    upright = ORIENTATIONS[orientation](np.asarray(noise(32)))
    assert np.array_equal(pictures.read(tmp_path / name).permute(1, 2, 0).numpy(), upright)


def test_a_wide_picture_is_cut_to_its_middle(tmp_path):
    wide = np.zeros((32, 96, 3), dtype=np.uint8)
    wide[:, 32:64] = np.asarray(noise(32))
    Image.fromarray(wide).save(tmp_path / "a.png")
    assert np.array_equal(pictures.read(tmp_path / "a.png").permute(1, 2, 0).numpy(), np.asarray(noise(32)))


@pytest.mark.parametrize("size", [(640, 480), (3000, 2000), (2000, 3000)])
def test_a_large_jpeg_decoded_small_is_what_it_is_decoded_whole(tmp_path, monkeypatch, size):
    rows, columns = np.mgrid[: size[1], : size[0]] / 100
    waves = np.stack([np.sin(rows) * 99 + 128, np.cos(columns) * 99 + 128, np.sin(rows + columns) * 99 + 128], axis=2)
    Image.fromarray(waves.astype(np.uint8)).save(tmp_path / "a.jpg", quality=95)
    small = pictures.read(tmp_path / "a.jpg").int()
    monkeypatch.setattr(pictures, "DRAFT", 10**6)
    assert (small - pictures.read(tmp_path / "a.jpg").int()).abs().max() <= 3


# ------------------------------------------------------------------------------------- damage


def saved(picture, kind, **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def chunk(name, content, checksum=None):
    """One of a PNG's."""
    checksum = zlib.crc32(name + content) if checksum is None else checksum
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)


def png_with(*chunks):
    raw = saved(noise(32), "PNG")
    return raw[:33] + b"".join(chunks) + raw[33:]  # after the header


def jpeg_with(marker, content):
    raw = saved(image(), "JPEG")
    return raw[:2] + b"\xff" + marker + struct.pack(">H", len(content) + 2) + content + raw[2:]


JUNK = bytes(range(256))
TIFF_HEADER = b"II*\x00\x08\x00\x00\x00"
# Files whose pixels are sound, and what else is in them is not.
DAMAGED_METADATA = {
    "png, EXIF that is none": ("a.png", png_with(chunk(b"eXIf", JUNK))),
    "png, EXIF cut off": ("a.png", png_with(chunk(b"eXIf", TIFF_HEADER + b"\xff\xff"))),
    "png, EXIF of a wrong checksum": ("a.png", png_with(chunk(b"eXIf", JUNK, 0))),
    "png, text of a wrong checksum": ("a.png", png_with(chunk(b"tEXt", b"name\0text", 0))),
    "png, text that does not unpack": ("a.png", png_with(chunk(b"zTXt", b"name\0\0" + JUNK))),
    "png, a text of 100 MB, packed": ("a.png", png_with(chunk(b"zTXt", b"name\0\0" + zlib.compress(bytes(10**8))))),
    "png, profile that does not unpack": ("a.png", png_with(chunk(b"iCCP", b"name\0\0" + JUNK))),
    "png, size in metres cut off": ("a.png", png_with(chunk(b"pHYs", b"\0"))),
    "png, end missing": ("a.png", saved(noise(32), "PNG")[:-12]),
    "jpeg, EXIF that is none": ("a.jpg", jpeg_with(b"\xe1", b"Exif\0\0" + JUNK)),
    "jpeg, EXIF cut off": ("a.jpg", jpeg_with(b"\xe1", b"Exif\0\0" + TIFF_HEADER + b"\xff\xff")),
    "jpeg, orientation 99": ("a.jpg", jpeg_with(
        b"\xe1", b"Exif\0\0" + TIFF_HEADER + struct.pack("<HHHIII", 1, 0x0112, 3, 1, 99, 0))),
    "jpeg, orientation that is a text": ("a.jpg", jpeg_with(
        b"\xe1", b"Exif\0\0" + TIFF_HEADER + struct.pack("<HHHI4sI", 1, 0x0112, 2, 4, b"up\0\0", 0))),
    "jpeg, XMP that is none": ("a.jpg", jpeg_with(b"\xe1", b"http://ns.adobe.com/xap/1.0/\0" + JUNK)),
    "jpeg, profile that is none": ("a.jpg", jpeg_with(b"\xe2", b"ICC_PROFILE\0\1\1" + JUNK)),
    "jpeg, Photoshop's block cut off": ("a.jpg", jpeg_with(b"\xed", b"Photoshop 3.0\x008BIM\x04\x04\0")),
    "jpeg, pair of pictures that is none": ("a.jpg", jpeg_with(b"\xe2", b"MPF\0" + JUNK)),
    "webp, EXIF that is none": ("a.webp", saved(image(), "WEBP", exif=b"Exif\0\0" + JUNK)),
    "jpeg, bytes after its end": ("a.jpg", saved(image(), "JPEG") + JUNK),
}


@pytest.mark.fault("pictures of every kind, odd metadata, damage")
@pytest.mark.parametrize("kind", DAMAGED_METADATA)
def test_damaged_metadata_does_not_stop_a_readable_picture(tmp_path, recwarn, kind):
    name, raw = DAMAGED_METADATA[kind]
    (tmp_path / name).write_bytes(raw)
    read = pictures.read(tmp_path / name).permute(1, 2, 0).numpy()
    expected = np.asarray(noise(32)) if name == "a.png" else np.broadcast_to(COLOR, (32, 32, 3))
    assert np.abs(read.astype(int) - expected).max() <= (0 if name == "a.png" else 4)
    assert not recwarn.list


def half(raw):
    return raw[: len(raw) // 2]


# Files with a picture's suffix that are none, or none that can be read.
UNREADABLE = {
    **{f"{name}, {what}": (name, spoil(saved(noise(), kind)))
       for name, kind in (("a.png", "PNG"), ("a.jpg", "JPEG"), ("a.gif", "GIF"), ("a.webp", "WEBP"), ("a.tif", "TIFF"),
                          ("a.bmp", "BMP"))
       for what, spoil in (("empty", lambda raw: b""), ("half", half), ("ten bytes", lambda raw: raw[:10]))},
    "text": ("a.png", b"no picture"),
    "html": ("a.jpg", b"<html>not found</html>"),
    "zeros": ("a.jpg", bytes(1000)),
    "png of 200 megapixels": ("a.png", saved(noise(), "PNG")[:16] + chunk(
        b"IHDR", struct.pack(">IIBBBBB", 14_000, 14_300, 1, 0, 0, 0, 0))[8:] + saved(noise(), "PNG")[33:]),
    "png of no size": ("a.png", saved(noise(), "PNG")[:8] + chunk(
        b"IHDR", struct.pack(">IIBBBBB", 0, 0, 8, 2, 0, 0, 0)) + saved(noise(), "PNG")[33:]),
    "png, pixels of a wrong checksum": ("a.png", saved(noise(), "PNG")[:33] + chunk(b"IDAT", JUNK, 0)),
    "tiff of a kind unknown": ("a.tif", TIFF_HEADER + struct.pack("<HHHIII", 1, 0x0103, 3, 1, 9999, 0)),
    "postscript": ("a.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: x\n"),
}


@pytest.mark.fault("pictures of every kind, odd metadata, damage")
@pytest.mark.parametrize("kind", UNREADABLE)
def test_an_unreadable_picture_is_one_line_that_names_it(tmp_path, kind):
    name, raw = UNREADABLE[kind]
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(InputError, match=rf"^data_path: '{tmp_path / name}' .*a readable picture \(\S") as caught:
        data.folder(tmp_path)
    assert "\n" not in str(caught.value)
    assert " at 0x" not in str(caught.value)


@pytest.mark.parametrize(("bad", "said"), [
    (1, "^[^;]*;[^;]*$"), (2, "; nor can be read [^,]*1.png$"), (3, "; nor can be read [^,]*1.png, [^,]*2.png$"),
    (6, "; nor can be read [^,]*1.png, [^,]*2.png and 3 more$"),
])
def test_of_several_unreadable_pictures_the_first_are_named_and_the_others_counted(tmp_path, bad, said):
    for i in range(8):
        paint(tmp_path / f"{i}.png")
    for i in range(bad):
        (tmp_path / f"{i}.png").write_bytes(b"")
    with pytest.raises(InputError, match=f"^data_path: '{tmp_path / '0.png'}'") as caught:
        data.folder(tmp_path)
    assert re.search(said, str(caught.value))


# ------------------------------------------------------------------------------------- finding


def said(capsys):
    """The lines for whoever watches, without the progress bar's."""
    lines = re.split(r"[\r\n]", capsys.readouterr().err)
    return [line for line in lines if "pictures: skipped " in line or "too few" in line]


def test_a_folder_that_is_read_whole_says_nothing(tmp_path, capsys):
    for name in "ab":
        for i in range(5):
            paint(tmp_path / name / f"{i}.png")
    data.folder(tmp_path)
    assert said(capsys) == []


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"?")


# What lies in a folder beside three pictures of class a, and what is said of it.
PASSED = {
    "picture beside": (lambda root: paint(root / "x.png"), "skipped 1 picture beside the class folders"),
    "pictures beside": (lambda root: [paint(root / f"{i}.jpg") for i in range(3)],
                        "skipped 3 pictures beside the class folders"),
    "other file beside": (lambda root: touch(root / "notes.txt"), "skipped 1 file that is no picture"),
    "other files inside": (lambda root: touch(root / "a" / "Thumbs.db", root / "a" / "b" / "x.mp4"),
                           "skipped 2 files that are no pictures"),
    "video that Pillow knows but cannot read": (lambda root: touch(root / "a" / "x.mpg"), "1 file that is no picture"),
    "hidden file": (lambda root: touch(root / "a" / "._a.png"), "skipped 1 hidden name"),
    "hidden folders": (lambda root: touch(root / ".ipynb_checkpoints" / "a.png", root / "a" / ".b" / "x.png"),
                       "skipped 2 hidden names"),
    "empty folder": (lambda root: (root / "dogs").mkdir(), "skipped the empty class folder dogs"),
    "empty folders": (lambda root: [(root / name).mkdir() for name in "bcdefgh"],
                      "skipped the empty class folders b, c, d, e, f and 2 more"),
    "folder of other files": (lambda root: touch(root / "docs" / "x.txt"),
                              "skipped 1 file that is no picture and the empty class folder docs"),
    "dangling link": (lambda root: (root / "a" / "x.png").symlink_to(root / "gone"), "1 file that is no picture"),
    **({"pipe": (lambda root: os.mkfifo(root / "a" / "pipe.png"), "1 file that is no picture")}
       if hasattr(os, "mkfifo") else {}),
    "all of it": (lambda root: (paint(root / "x.png"), touch(root / "y.txt", root / "z.txt", root / ".z")),
                  "skipped 1 hidden name, 2 files that are no pictures and 1 picture beside the class folders"),
}


@pytest.mark.fault("folders: hidden, nested, mixed, empty, missing")
@pytest.mark.parametrize("kind", PASSED)
def test_what_is_passed_over_is_counted_in_one_line(tmp_path, capsys, kind):
    add, expected = PASSED[kind]
    for i in range(3):
        paint(tmp_path / "a" / f"{i}.png")
    add(tmp_path)
    read = data.folder(tmp_path)
    assert (len(read.train_images), len(read.test_images)) == (2, 1)
    assert read.classes == ("a",)
    (line,) = said(capsys)
    assert expected in line
    assert line.endswith("; found: 3 png in a")


def test_in_a_notebook_what_is_passed_over_is_said_on_stdout(tmp_path, capsys, monkeypatch):
    kernel = SimpleNamespace(IPKernelApp=SimpleNamespace(initialized=lambda: True))
    monkeypatch.setitem(sys.modules, "ipykernel.kernelapp", kernel)
    paint(tmp_path / "a" / "a.png")
    paint(tmp_path / "a.png")
    pictures.find(tmp_path)
    captured = capsys.readouterr()
    assert (captured.out.count("skipped"), captured.err) == (1, "")


def test_class_folders_are_read_to_any_depth_by_way_of_links_too(tmp_path):
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    for name in ("2023/may/a.webp", "2023/b.PNG", "c.gif"):
        paint(root / "cats" / name)
    paint(elsewhere / "d.png")
    (root / "cats" / "linked").symlink_to(elsewhere)
    (root / "dogs").symlink_to(elsewhere)
    (root / "cats" / "round").symlink_to(root)  # in a circle
    found = pictures.find(root)
    assert {name: sorted(path.name for path in files) for name, files in found.items()} == {
        "cats": ["a.webp", "b.PNG", "c.gif", "d.png"], "dogs": ["d.png"],
    }


@pytest.mark.slow
def test_classes_and_their_pictures_are_those_of_torchvisions_imagefolder(tmp_path):
    from torchvision.datasets import ImageFolder

    for name in ("b/1.png", "b/x/2.jpg", "a/10.png", "a/9.png", "c/y/z/1.webp"):
        paint(tmp_path / name)
    theirs, ours = ImageFolder(tmp_path), pictures.find(tmp_path)
    assert list(ours) == theirs.classes
    assert {(str(file), label) for label, files in enumerate(ours.values()) for file in files} == set(theirs.samples)


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    paint(tmp_path / "pictures" / "a.png")
    assert len(data.load("folder", path="~/pictures").train_images) == 1


# What is no folder of pictures.
NO_FOLDER = {
    "nothing": lambda root: None, "an empty text": lambda root: "", "missing": lambda root: root / "missing",
    "a text file": lambda root: root / "notes.txt", "a picture": lambda root: root / "a" / "a.png",
    "a folder without pictures": lambda root: root / "docs", "somebody unknown": lambda root: "~nobody-of-this-name/x",
    "a zero byte": lambda root: "a\0b",
}


@pytest.mark.fault("folders: hidden, nested, mixed, empty, missing")
@pytest.mark.parametrize("kind", NO_FOLDER)
def test_what_is_no_folder_of_pictures_is_one_line_that_names_it(tmp_path, kind):
    touch(tmp_path / "notes.txt", tmp_path / "docs" / "x.txt")
    paint(tmp_path / "a" / "a.png")
    path = NO_FOLDER[kind](tmp_path)
    with pytest.raises(InputError) as caught:
        data.folder(path)
    given = path if path is None else str(path)
    assert str(caught.value).startswith(f"data_path: {given!r} was given; accepted: a folder ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("where", ["", "a", "a/deep"])
def test_a_folder_that_cannot_be_read_is_an_error_that_names_it(tmp_path, monkeypatch, where):
    paint(tmp_path / "a" / "deep" / "a.png")
    sound = type(tmp_path).iterdir

    def iterdir(path):
        if path == tmp_path / where:
            raise PermissionError(13, "Permission denied")
        return sound(path)

    monkeypatch.setattr(type(tmp_path), "iterdir", iterdir)
    with pytest.raises(InputError, match=f"^data_path: '{tmp_path / where}'.*Permission denied"):
        data.folder(tmp_path)


# ------------------------------------------------------------------------------------ splitting


@pytest.mark.parametrize("sizes", [
    [1], [2], [3], [5], [10, 10, 10, 2], [20, 1], [5] * 10, [1] * 5, [100, 7, 3], [8, 12, 13], [1000, 4],
], ids=str)
def test_of_each_class_a_fifth_is_held_out_and_never_all_of_it(sizes):
    labels = torch.cat([torch.full((size,), label) for label, size in enumerate(sizes)])
    train, test = pictures.split(labels)
    assert sorted(torch.cat([train, test]).tolist()) == list(range(len(labels)))
    assert labels[test].bincount(minlength=len(sizes)).tolist() == [round(size / 5) for size in sizes]
    assert labels[train].bincount(minlength=len(sizes)).min() > 0


def test_the_split_is_the_same_every_time_and_of_a_class_whatever_the_others_are():
    torch.manual_seed(1)
    alone = pictures.split(torch.zeros(20, dtype=torch.int64))[1]
    torch.manual_seed(2)
    beside = pictures.split(torch.cat([torch.zeros(20), torch.ones(33)]).long())[1]
    assert sorted(alone.tolist()) == sorted(beside[beside < 20].tolist())
    assert torch.equal(beside, pictures.split(torch.cat([torch.zeros(20), torch.ones(33)]).long())[1])


def test_the_first_pictures_of_both_parts_are_of_every_class():
    labels = torch.arange(3).repeat_interleave(50)
    for part in pictures.split(labels):
        assert labels[part][:20].bincount(minlength=3).min() > 0


def test_classes_too_small_for_a_test_picture_are_named_once(tmp_path, capsys):
    for name, count in (("a", 5), ("b", 2), ("c", 1)):
        for i in range(count):
            paint(tmp_path / name / f"{i}.png")
    read = data.folder(tmp_path)
    assert read.train_labels.bincount().tolist() == [4, 2, 1]
    assert said(capsys) == ["pictures: too few to hold one out for the test set in b, c"]


# ------------------------------------------------------------------------------- the whole folder


def test_a_labelled_folder_has_a_class_per_subfolder(tmp_path):
    for name, color in (("a", (250, 0, 0)), ("b", (0, 0, 250))):
        for i in range(10):
            paint(tmp_path / name / f"{i}.{('png', 'jpg', 'JPEG')[i % 3]}", color)
    read = data.load("folder", path=tmp_path)
    assert read.classes == ("a", "b")
    for images, labels, count in ((read.train_images, read.train_labels, 16), (read.test_images, read.test_labels, 4)):
        assert (images.shape, images.dtype, labels.dtype) == ((count, 3, 32, 32), torch.uint8, torch.int64)
        assert torch.equal(images[:, 2, 5, 5] > 125, labels == 1)
    again = data.load("folder", path=tmp_path)
    assert all(torch.equal(getattr(read, key), getattr(again, key)) for key in data.KEYS)


def test_no_picture_is_in_both_parts(tmp_path):
    for i in range(30):
        paint(tmp_path / f"{i}.png", (8 * i, 0, 0))
    read = data.folder(tmp_path)
    shades = torch.cat([read.train_images, read.test_images])[:, 0, 0, 0]
    assert sorted(shades.tolist()) == [8 * i for i in range(30)]


def test_an_unlabelled_folder_is_one_class(tmp_path):
    for i in range(5):
        paint(tmp_path / f"{i}.png")
    read = data.folder(tmp_path)
    assert read.classes == ("unlabeled",)
    assert (read.train_labels.tolist(), read.test_labels.tolist()) == ([0] * 4, [0])
    assert data.load("folder", path=tmp_path, channels=1).train_images.shape == (4, 1, 32, 32)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_train_from_disk_reads_the_very_same_pictures(tmp_path, monkeypatch, workers):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    from train_from_disk import packed

    for i, (name, write, _) in enumerate(KINDS.values()):
        (tmp_path / "ab"[i % 2]).mkdir(exist_ok=True)
        write(tmp_path / "ab"[i % 2] / f"{i}{name[1:]}")
    files = [file for group in pictures.find(tmp_path).values() for file in group]
    kept = packed(files, workers, tmp_path / "out")
    assert torch.equal(kept, pictures.read_all(files))
    (tmp_path / "a" / "damaged.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"damaged\.png' .*a readable picture \(it is damaged, or no picture\)$"):
        packed([*files, tmp_path / "a" / "damaged.png"], workers, tmp_path / "other")
    monkeypatch.setattr(pictures, "read", lambda file: pytest.fail("read again"))
    assert torch.equal(packed(files, 0, tmp_path / "out"), kept)
