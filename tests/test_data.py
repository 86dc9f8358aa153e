from types import SimpleNamespace

import numpy as np
import pytest
import sklearn.datasets
import torch

from jepa_utils import data
from jepa_utils.runtime import InputError

TASKS = {"classes": 10, "present": 2}


def fresh_digits(train=400, test=100, **options):
    """Composed anew, past the cache."""
    return data.digits.__wrapped__(train, test, **options)


# ---------------------------------------------------------------------------------------- digits


@pytest.mark.slow
@pytest.mark.parametrize(("task", "classes"), TASKS.items())
def test_digits_are_10000_and_2000_colour_pictures_of_balanced_classes(task, classes):
    digits = data.load("digits", task)
    assert len(digits.classes) == classes
    parts = (digits.train_images, digits.train_labels, 10_000), (digits.test_images, digits.test_labels, 2_000)
    for images, labels, count in parts:
        assert (images.shape, images.dtype) == ((count, 3, 32, 32), torch.uint8)
        assert (labels.shape, labels.dtype) == ((count,), torch.int64)
        assert labels.bincount().tolist() == [count // classes] * classes


@pytest.mark.parametrize("task", TASKS)
def test_digits_are_the_same_for_the_same_seed_whatever_torchs_own_generator_does(task):
    torch.manual_seed(1)
    first = fresh_digits(task=task, seed=3)
    torch.manual_seed(2)
    again, other = fresh_digits(task=task, seed=3), fresh_digits(task=task, seed=4)
    for key in data.KEYS:
        assert torch.equal(getattr(first, key), getattr(again, key))
        assert not torch.equal(getattr(first, key), getattr(other, key))


def replace_sources(monkeypatch, sheets, shade):
    """Other handwriting (N, 8, 8), 0 to 16, for the same digits, and photographs of a single shade."""
    target = sklearn.datasets.load_digits().target
    photo = np.full((427, 640, 3), shade, dtype=np.uint8)
    monkeypatch.setattr(sklearn.datasets, "load_digits", lambda: SimpleNamespace(images=sheets, target=target))
    monkeypatch.setattr(sklearn.datasets, "load_sample_images", lambda: SimpleNamespace(images=[photo, photo]))


def inked(images, shade):
    """Whether each image shows ink in its middle, which every sheet covers wherever it lies."""
    return images[:, :, 16, 16].ne(shade).all(dim=1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_no_handwriting_is_shared_between_train_and_test(monkeypatch, seed):
    count = len(sklearn.datasets.load_digits().target)
    numbers = {"train_images": 0, "test_images": 0}
    for bit in range(11):  # in the eleven runs, ink spells the number of the sheet that an image shows, bit by bit
        written = np.arange(count)[:, None, None] >> bit & 1
        replace_sources(monkeypatch, 16.0 * np.broadcast_to(written, (count, 8, 8)), 60)
        digits = fresh_digits(2_000, 600, seed=seed)
        for part in numbers:
            numbers[part] += inked(getattr(digits, part), 60).int() << bit
    train, test = (set(shown.tolist()) for shown in numbers.values())
    assert len(train) > 1000  # handwriting is many people's, not a few sheets over and over
    assert len(test) > 250
    assert max(train | test) < count
    assert not train & test


@pytest.fixture(params=[60, 200])
def plain_paper(monkeypatch, request):
    """Photographs without variance, and ink all over the sheets of the digits 5 to 9, none on the others."""
    target = sklearn.datasets.load_digits().target
    replace_sources(monkeypatch, 16.0 * np.broadcast_to(target[:, None, None] >= 5, (len(target), 8, 8)), request.param)
    return request.param


def test_labels_say_which_digit_is_drawn_in_a_contrasting_colour_24_to_32_pixels_wide(plain_paper):
    digits = fresh_digits()
    difference = (digits.train_images.int() - plain_paper).abs().amin(dim=1)  # in the channel of the least contrast
    drawn = inked(digits.train_images, plain_paper)
    assert torch.equal(drawn, digits.train_labels >= 5)
    assert difference[drawn, 16, 16].min() > 80
    for line in (difference[drawn, 16], difference[drawn, :, 16]):  # edges are smooth: inked from about half on
        width = (line > 40).sum(dim=1)
        assert width.min() >= 23
        assert width.max() == 32


def test_absent_is_background_alone_and_present_holds_a_digit(plain_paper, monkeypatch):
    replace_sources(monkeypatch, np.full((len(sklearn.datasets.load_digits().target), 8, 8), 16.0), plain_paper)
    digits = fresh_digits(task="present")
    assert digits.classes == ("absent", "present")
    assert torch.equal((digits.train_images != plain_paper).any(dim=(1, 2, 3)).long(), digits.train_labels)


@pytest.mark.slow
def test_grayscale_is_the_luma_of_the_same_pictures():
    gray, color = data.load("digits", "present", channels=1), data.load("digits", "present")
    assert gray.train_images.shape == (10_000, 1, 32, 32)
    red, green, blue = color.test_images.double().unbind(1)
    expected = 0.299 * red + 0.587 * green + 0.114 * blue
    assert (gray.test_images[:, 0] - expected).abs().max() < 1
    assert torch.equal(gray.test_labels, color.test_labels)


def test_limited_takes_the_first_of_both_parts():
    digits = data.load("digits", "present")
    few = digits.limited(30)
    assert [len(getattr(few, key)) for key in data.KEYS] == [30] * 4
    assert [len(getattr(digits.limited(30, 7), key)) for key in data.KEYS] == [30, 30, 7, 7]
    assert torch.equal(few.test_images, digits.test_images[:30])


@pytest.mark.parametrize(("options", "parameter"), [
    ({"name": "mnist"}, "dataset"), ({"name": "digits", "task": "count"}, "task"),
    ({"name": "digits", "channels": 2}, "channels"),
    ({"name": "cifar10", "task": "present"}, "task"), ({"name": "folder"}, "data_path"),
])
def test_load_names_the_parameter_that_it_refuses(options, parameter):
    with pytest.raises(InputError, match=f"^{parameter}: "):
        data.load(**options)


@pytest.mark.parametrize(("options", "parameter"), [
    ({"train": 0}, "train"), ({"test": -1}, "test"), ({"train": 1.5}, "train"), ({"task": "count"}, "task"),
])
def test_digits_name_the_parameter_that_they_refuse(options, parameter):
    with pytest.raises(InputError, match=f"^{parameter}: "):
        data.digits(**options)


# ----------------------------------------------------------------------------------------- a data set of your own

X, Y = torch.zeros(4, 3, 32, 32, dtype=torch.uint8), torch.arange(4)
BAD = [
    ("floats", {"train_images": X.float()}, "train_images"), ("no batch", {"test_images": X[0]}, "test_images"),
    ("an array", {"train_images": X.numpy()}, "train_images"),
    ("a label too few", {"train_labels": Y[1:]}, "train_labels"),
    ("a picture too few", {"test_images": X[1:]}, "test_labels"),
    ("float labels", {"train_labels": Y.float()}, "train_labels"),
    ("labels of a byte", {"test_labels": Y.byte()}, "test_labels"),
    ("labels in a column", {"train_labels": Y[:, None]}, "train_labels"),
    ("a list of labels", {"train_labels": [0, 1, 2, 3]}, "train_labels"),
    ("no labels", {"test_labels": None}, "test_labels"),
]


@pytest.mark.fault("bad data sets")
@pytest.mark.parametrize(("what", "changes", "parameter"), BAD, ids=[row[0] for row in BAD])
def test_a_data_set_of_something_else_is_refused_by_name(what, changes, parameter):
    with pytest.raises(InputError, match=f"^{parameter}: "):
        data.Dataset("digits", tuple("0123"), **(dict(zip(data.KEYS, (X, Y, X, Y), strict=True)) | changes))


@pytest.mark.fault("bad data sets")
@pytest.mark.parametrize(("counts", "parameter"), [
    ((0,), "train"), ((-1,), "train"), ((2, 0), "test"), ((2, 1.5), "test"), (("2",), "train"),
])
def test_a_limit_that_is_no_number_of_images_is_refused_by_name(counts, parameter):
    images = data.Dataset("digits", tuple("0123"), X, Y, X, Y)
    with pytest.raises(InputError, match=f"^{parameter}: "):
        images.limited(*counts)
    assert len(images.limited(None).train_images) == len(images.limited(2, 9).test_images) == 4


def test_the_notebooks_data_set_is_named_by_the_variable_that_chooses_it(monkeypatch):
    monkeypatch.setenv("JEPA_DATASET", "imagenet")
    with pytest.raises(InputError, match=r"^JEPA_DATASET: 'imagenet' was given; accepted: digits, cifar10"):
        data.chosen()
