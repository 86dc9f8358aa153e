from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as tv
from scipy.stats import binomtest, ks_2samp
from torchvision.transforms import ColorJitter, InterpolationMode, RandomResizedCrop

from jepa_utils import augment, pixels
from jepa_utils.augment import CIFAR10, DIGITS, NOTHING, Augmentation, draw_parameters, make_views, random_partial
from jepa_utils.runtime import InputError, generator

STRONG = Augmentation(scale=(0.05, 1.0), ratio=(0.5, 2.0), jitter=0.8, brightness=0.9, contrast=0.9, saturation=0.9,
                      hue=0.5, grayscale=0.3, blur=0.5, solarize=0.4)
MANY = 4000  # draws per distribution test


@pytest.fixture
def images():
    """Noise, and flat patches of every mix of 0, 1/2 and 1, where hue has ties; taller than wide."""
    colors = torch.tensor(list(product((0, 0.5, 1), repeat=3))).T.reshape(3, 9, 3)
    patches = colors.repeat_interleave(4, 1).repeat_interleave(8, 2)
    return torch.cat([torch.rand(5, 3, 36, 24, generator=generator(0)), patches[None]])


# One parameter for every image of `images`.
FACTORS = torch.tensor([0.0, 0.3, 0.8, 1.0, 1.4, 2.0])
SHIFTS = torch.tensor([0.0, 0.1, 0.25, -0.1, -0.5, 0.4])
SIGMAS = torch.tensor([0.1, 0.5, 1.0, 1.5, 2.0, 3.0])
SWITCHES = torch.tensor([0.0, 1, 1, 0, 1, 1])
OPERATIONS = {  # name: (parameters, ours on the batch, torchvision's on one image)
    "brightness": (FACTORS, augment.adjust_brightness, tv.adjust_brightness),
    "contrast": (FACTORS, augment.adjust_contrast, tv.adjust_contrast),
    "saturation": (FACTORS, augment.adjust_saturation, tv.adjust_saturation),
    "hue": (SHIFTS, augment.adjust_hue, tv.adjust_hue),
    "blur": (SIGMAS, augment.gaussian_blur, lambda x, sigma: tv.gaussian_blur(x, [5, 5], [sigma, sigma])),
    "solarize": (SWITCHES, augment.solarize, lambda x, on: tv.solarize(x, 0.5) if on else x),
    "luma": (SWITCHES, lambda x, _: pixels.luma(x), lambda x, _: tv.rgb_to_grayscale(x)),
}


def torchvision_crop(x, top, left, height, width, flip):
    box = [int(value) for value in (top, left, height, width)]
    x = tv.resized_crop(x, *box, list(x.shape[1:]), InterpolationMode.BILINEAR, antialias=False)
    return tv.hflip(x) if flip else x


def torchvision_view(x, p, order):
    """The recipe on one image, operation by operation, from the parameters of `draw_parameters`."""
    x = torchvision_crop(x, *(p[name] for name in ("top", "left", "height", "width", "flip")))
    for i in order:
        name = ("brightness", "contrast", "saturation", "hue")[i]
        x = getattr(tv, f"adjust_{name}")(x, p[name])
    if p["grayscale"]:
        x = tv.rgb_to_grayscale(x, len(x))
    if p["blur"]:
        x = tv.gaussian_blur(x, [5, 5], [p["sigma"]] * 2)
    return tv.solarize(x, 0.5) if p["solarize"] else x


def torchvision_views(images, drawn, order=range(4)):
    """The recipe on a batch, one image after the other."""
    return torch.stack([
        torchvision_view(x, {name: value[i].item() for name, value in drawn.items()}, order)
        for i, x in enumerate(images)])


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize(("name", "channels"), [
    *product(OPERATIONS, [3]), *product(["brightness", "contrast", "blur", "solarize"], [1]),
])
def test_each_operation_is_torchvisions(images, name, channels):
    images, (parameters, ours, theirs) = images[:, :channels], OPERATIONS[name]
    expected = torch.stack([theirs(x, value) for x, value in zip(images, parameters.tolist(), strict=True)])
    close(ours(images, parameters), expected)


def test_crop_is_torchvisions(images):
    # (top, left, height, width, flip): whole, mirrored, corners, one row, one column, one pixel
    boxes = torch.tensor([[0, 0, 36, 24, 0], [0, 0, 36, 24, 1], [20, 7, 16, 17, 1],
                          [35, 0, 1, 24, 0], [3, 23, 20, 1, 1], [9, 5, 1, 1, 0]])
    expected = torch.stack([torchvision_crop(x, *box) for x, box in zip(images, boxes.tolist(), strict=True)])
    close(augment.crop(images, *boxes.T.float()), expected)


@pytest.mark.parametrize("channels", [3, 1], ids=["colour", "gray"])
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1, 0, 2)], ids=str)
def test_whole_views_are_torchvisions_for_the_same_parameters(channels, order):
    images = torch.rand(64, channels, 32, 32, generator=generator(1))
    drawn = draw_parameters(images.shape, STRONG, generator(2))
    close(augment.apply_parameters(images, STRONG, drawn, order), torchvision_views(images, drawn, order))


def same_distribution(found, expected):
    assert ks_2samp(found, expected).pvalue > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(("size", "scale", "ratio"), [
    ((32, 32), (0.2, 1.0), (3 / 4, 4 / 3)),
    ((36, 24), (0.05, 0.6), (0.5, 2.0)),
    ((32, 32), (0.8, 1.0), (0.5, 1.0)),  # most attempts do not fit, and some images fall back
], ids=["cifar10", "oblong", "tight"])
def test_boxes_have_the_distribution_of_random_resized_crop(size, scale, ratio):
    torch.manual_seed(0)
    reference = torch.tensor([RandomResizedCrop.get_params(torch.empty(3, *size), scale, ratio) for _ in range(MANY)])
    drawn = draw_parameters((MANY, 3, *size), replace(CIFAR10, scale=scale, ratio=ratio), generator(0))
    top, left, height, width = (drawn[name] for name in ("top", "left", "height", "width"))
    for found, expected in zip((top, left, height, width), reference.T, strict=True):
        same_distribution(found, expected)
    same_distribution(height * width, reference[:, 2] * reference[:, 3])
    same_distribution(width / height, reference[:, 3] / reference[:, 2])
    for start, length, whole in ((top, height, size[0]), (left, width, size[1])):
        assert (start >= 0).all()
        assert (start + length <= whole).all()
        assert (length >= 1).all()


@pytest.mark.parametrize(("size", "ratio"), [
    ((32, 32), (3, 4)), ((32, 32), (1 / 4, 1 / 3)), ((36, 25), (2, 3)), ((20, 37), (0.2, 0.5)),
], ids=str)
def test_impossible_boxes_fall_back_to_torchvisions(size, ratio):
    expected = RandomResizedCrop.get_params(torch.empty(3, *size), (0.95, 1.0), ratio)
    drawn = draw_parameters((50, 3, *size), replace(CIFAR10, scale=(0.95, 1.0), ratio=ratio), generator(0))
    for name, value in zip(("top", "left", "height", "width"), expected, strict=True):
        assert (drawn[name] == value).all()


def test_colour_factors_have_the_distribution_of_color_jitter():
    jitter = ColorJitter(STRONG.brightness, STRONG.contrast, STRONG.saturation, STRONG.hue)
    torch.manual_seed(0)
    ranges = jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue
    reference = torch.tensor([ColorJitter.get_params(*ranges)[1:] for _ in range(MANY)])
    drawn = draw_parameters((MANY, 3, 32, 32), replace(STRONG, jitter=1), generator(0))
    for name, expected in zip(("brightness", "contrast", "saturation", "hue"), reference.T, strict=True):
        same_distribution(drawn[name], expected)


def test_choices_have_their_probabilities_and_jitter_is_one_choice_for_all_four():
    drawn = draw_parameters((MANY, 3, 32, 32), STRONG, generator(1))
    neutral = {"brightness": 1, "contrast": 1, "saturation": 1, "hue": 0}
    jittered = torch.stack([drawn[name] != value for name, value in neutral.items()])
    assert (jittered == jittered[0]).all()
    for name in ("flip", "grayscale", "blur", "solarize", "jitter"):
        count = int(jittered[0].sum() if name == "jitter" else drawn[name].sum())
        assert binomtest(count, MANY, getattr(STRONG, name)).pvalue > 1e-3, name
    assert STRONG.sigma[0] <= drawn["sigma"].min() < 0.15 < 1.95 < drawn["sigma"].max() <= STRONG.sigma[1]


def test_parameters_of_images_views_and_operations_are_unrelated():
    g = generator(0)
    first, second = (draw_parameters((MANY, 3, 32, 32), replace(STRONG, jitter=1), g) for _ in range(2))
    box = ("top", "left", "height", "width")
    table = torch.stack([value for drawn in (first, second) for name, value in drawn.items() if name not in box])
    related = torch.corrcoef(table) - torch.eye(len(table))
    assert related.abs().max() < 5 / MANY**0.5
    assert torch.corrcoef(torch.stack([table[0][1:], table[0][:-1]]))[0, 1].abs() < 5 / MANY**0.5


@pytest.mark.parametrize("augmentation", [CIFAR10, DIGITS, STRONG], ids=["cifar10", "digits", "strong"])
def test_copies_of_one_image_get_views_of_their_own(augmentation):
    image = torch.rand(1, 3, 32, 32, generator=generator(3))
    views = make_views(image.expand(20, -1, -1, -1), augmentation, 3, generator(0)).flatten(0, 1)
    assert views.shape == (60, 3, 32, 32)
    assert len(views.flatten(1).unique(dim=0)) == 60
    assert -1e-6 < views.min() <= views.max() < 1 + 1e-6  # to rounding


def test_the_seed_decides_the_views_and_the_chunk_does_not(monkeypatch):
    images = torch.rand(20, 3, 32, 32, generator=generator(3))
    views = make_views(images, STRONG, 2, generator(5))
    assert torch.equal(views, make_views(images, STRONG, 2, generator(5)))
    assert not torch.equal(views, make_views(images, STRONG, 2, generator(6)))
    monkeypatch.setattr(augment, "CPU_CHUNK", 7)
    close(make_views(images, STRONG, 2, generator(5)), views)


@pytest.mark.parametrize("channels", [3, 1], ids=["colour", "gray"])
def test_bytes_and_floats_give_the_same_views(channels):
    images = torch.randint(0, 256, (20, channels, 32, 32), dtype=torch.uint8, generator=generator(0))
    views = make_views(images, STRONG, 2, generator(5))
    assert views.dtype == torch.float32
    assert torch.equal(views, make_views(images.float() / 255, STRONG, 2, generator(5)))


@pytest.mark.parametrize("shape", [(4, 3, 32, 32), (4, 1, 28, 28)], ids=str)
def test_nothing_returns_the_images(shape):
    images = torch.rand(shape, generator=generator(0))
    close(make_views(images, NOTHING, 2, generator(0)), torch.stack([images, images]))


@pytest.mark.parametrize("share", [0, 0.25, 0.5, 1])
def test_random_partial_hides_exactly_the_share_in_whole_squares(share):
    images = torch.rand(30, 3, 32, 24, generator=generator(0))
    partial, mask = random_partial(images, share, 8, generator(0))
    squares = mask.unflatten(2, (4, 8)).unflatten(4, (3, 8)).float().mean(dim=(3, 5))  # (N, 1, 4, 3)
    assert ((squares == 0) | (squares == 1)).all()
    assert (squares.sum(dim=(1, 2, 3)) == share * 12).all()
    mean = images.mean(dim=(2, 3), keepdim=True).expand_as(images)
    hidden = mask.expand_as(images)
    close(partial[hidden], mean[hidden])
    assert torch.equal(partial[~hidden], images[~hidden])
    if 0 < share < 1:
        assert len(mask.flatten(1).unique(dim=0)) > 20  # images hide different squares
        assert not torch.equal(mask, random_partial(images, share, 8, generator(1))[1])


@pytest.mark.parametrize(("name", "value"), [
    *product(("flip", "jitter", "grayscale", "blur", "solarize", "brightness", "contrast", "saturation"),
             (-0.1, 1.1, float("nan"))),
    ("hue", 0.6), ("hue", -0.1), ("scale", (0, 1)), ("scale", (0.5, 0.2)), ("scale", (0.5, 1.5)),
    ("ratio", (0, 1)), ("ratio", (2, 1)), ("sigma", (0, 1)), ("sigma", (2, 1)), ("sigma", (-1, 1)),
])
def test_unusable_values_are_refused_by_name(name, value):
    with pytest.raises(InputError, match=f"^{name}: "):
        Augmentation(**{name: value})


PICTURES = torch.rand(6, 3, 16, 16, generator=generator(0))
BOX = [torch.full((6,), value) for value in (0.0, 0.0, 16.0, 16.0, 0.0)]
NAN, INF = float("nan"), float("inf")


def pictures(*shape):
    return torch.zeros(shape, dtype=torch.uint8)


# what is given, the call, the parameter that the error names
BAD = [
    *((f"{name}={value!r}", lambda name=name, value=value: Augmentation(**{name: value}), name) for name, value in (
        *product(("flip", "hue", "contrast"), ("0.5", None, True, (0, 1), INF)),
        *product(("scale", "ratio", "sigma"),
                 (0.5, None, "ab", (0.5,), (0.5, 0.6, 0.7), (NAN, 1), (0.5, NAN), ("a", "b"), (0.1, INF))),
    )),
    *((f"views={views!r}", lambda views=views: make_views(PICTURES, CIFAR10, views), "views")
      for views in (0, -1, 1.5, "2", True)),
    *((f"generator={g!r}", lambda g=g: make_views(PICTURES, CIFAR10, 2, g), "generator") for g in (0, "cpu")),
    *((f"part={part!r}", lambda part=part: make_views(PICTURES, CIFAR10, part=part), "part") for part in (
        0, [0, 1], slice(6, 9), slice(3, 3), slice(None, None, -1))),
    ("a preset's name", lambda: make_views(PICTURES, "cifar10"), "augmentation"),
    ("the fields alone", lambda: make_views(PICTURES, {"flip": 0.5}), "augmentation"),
    ("one image without its axis", lambda: make_views(PICTURES[0], CIFAR10), "images"),
    ("an array", lambda: make_views(PICTURES.numpy(), CIFAR10), "images"),
    ("values to 255", lambda: make_views(255 * PICTURES, CIFAR10), "images"),
    ("values from -1", lambda: make_views(2 * PICTURES - 1, CIFAR10), "images"),
    ("a hole", lambda: make_views(PICTURES / 0 * 0, CIFAR10), "images"),
    ("whole numbers", lambda: make_views(PICTURES.long(), CIFAR10), "images"),
    ("truth values", lambda: make_views(PICTURES > 0.5, CIFAR10), "images"),
    ("no image", lambda: make_views(pictures(0, 3, 8, 8), CIFAR10), "images"),
    ("no row", lambda: make_views(pictures(2, 3, 0, 8), CIFAR10), "images"),
    ("no channel", lambda: make_views(pictures(2, 0, 8, 8), NOTHING), "images"),
    ("two channels and jitter", lambda: make_views(pictures(2, 2, 8, 8), replace(CIFAR10, grayscale=0)), "images"),
    ("four channels and grayscale", lambda: make_views(pictures(2, 4, 8, 8), replace(CIFAR10, jitter=0)), "images"),
    ("blur of two pixels", lambda: make_views(pictures(2, 3, 2, 8), STRONG), "images"),
    ("blur wider than the image", lambda: augment.gaussian_blur(PICTURES, torch.ones(6), reach=16), "images"),
    ("a hue of gray", lambda: augment.adjust_hue(PICTURES[:, :1], torch.zeros(6)), "x"),
    ("crop of one image without its axis", lambda: augment.crop(PICTURES[0], *BOX), "x"),
    ("a box for five of six", lambda: augment.crop(PICTURES, BOX[0][:5], *BOX[1:]), "top"),
    ("one flip for all", lambda: augment.crop(PICTURES, *BOX[:4], torch.zeros(1)), "flip"),
    *((f"share={share!r}", lambda share=share: random_partial(PICTURES, share), "share")
      for share in (-0.1, 1.5, NAN, "half", None)),
    *((f"patch={patch!r}", lambda patch=patch: random_partial(PICTURES, patch=patch), "patch")
      for patch in (0, -8, 5, 8.0, 32)),
    ("a partial view of one image without its axis", lambda: random_partial(PICTURES[0]), "x"),
    ("a partial view by a seed", lambda: random_partial(PICTURES, generator=0), "generator"),
]


@pytest.mark.fault("bad input to views and augmentations")
@pytest.mark.parametrize(("what", "call", "parameter"), BAD, ids=[row[0] for row in BAD])
def test_what_cannot_be_used_is_refused_by_name(what, call, parameter):
    with pytest.raises(InputError, match=f"^{parameter}: "):
        call()


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (1, 32)], ids=str)
@pytest.mark.parametrize("channels", [3, 1])
def test_tiny_images_get_torchvisions_views_too(size, channels):
    images, recipe = torch.rand(20, channels, *size, generator=generator(0)), replace(STRONG, blur=0)
    drawn = draw_parameters(images.shape, recipe, generator(2))
    close(augment.apply_parameters(images, recipe, drawn), torchvision_views(images, drawn))


@pytest.mark.parametrize("channels", [2, 4])
def test_other_channels_are_cropped_flipped_and_solarized_alike(channels):
    recipe, one = replace(CIFAR10, jitter=0, grayscale=0, solarize=0.5), torch.rand(9, 1, 8, 8, generator=generator(0))
    views = make_views(one.expand(-1, channels, -1, -1), recipe, 2, generator(1))
    close(views, make_views(one, recipe, 2, generator(1)).expand_as(views))


def test_a_list_will_do_for_two_numbers_and_any_number_for_one():
    recipe = Augmentation(scale=[0.3, 1], flip=np.float32(0.5), hue=0)
    assert make_views(PICTURES, recipe).shape == (2, 6, 3, 16, 16)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.float64], ids=str)
def test_crops_and_partial_views_of_any_type_are_float32(dtype):
    images = (255 * PICTURES).to(dtype) if dtype == torch.uint8 else PICTURES.to(dtype)
    for make in (lambda x: augment.crop(x, *BOX), lambda x: random_partial(x, generator=generator(0))[0]):
        assert make(images).dtype == torch.float32
        close(make(images), make(pixels.to_float(images)))
