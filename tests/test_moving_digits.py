"""Moving digits against an independent oracle."""

import pytest
import torch

from jepa_utils.moving_digits import HIGH, LOW, NOISES, SPLITS, centre_of_mass, futures, handwriting, make_clips
from jepa_utils.runtime import InputError, generator


def triangle(start, velocity, t):
    """Where something is after t frames between two walls that reflect: a triangle wave, without any steps."""
    width = HIGH - LOW
    way = (start - LOW + velocity * t) % (2 * width)
    return LOW + torch.where(way > width, 2 * width - way, way)


def test_digits_move_along_a_triangle_wave():
    clips = make_clips(64, 40, generator(0))
    start, velocity = clips.positions[0].double(), clips.velocities[0].double()
    for t in range(40):
        torch.testing.assert_close(clips.positions[t].double(), triangle(start, velocity, t), rtol=0, atol=1e-4)


def test_the_ink_lies_where_positions_say_and_none_of_it_is_lost():
    for split in SPLITS:
        clips = make_clips(300, 12, generator(1), split)
        found = 16 * (centre_of_mass(clips.frames) + 1)
        torch.testing.assert_close(found, clips.positions, rtol=0, atol=1e-3)
        ink = clips.frames.sum(dim=(2, 3, 4))
        torch.testing.assert_close(ink, clips.ink.sum(dim=(1, 2, 3)).expand_as(ink), rtol=1e-4, atol=1e-4)
        assert clips.frames.min() >= 0
        assert clips.frames.max() <= 1


def test_centre_of_mass_of_a_single_pixel():
    image = torch.zeros(1, 1, 8, 8)
    image[0, 0, 2, 7] = 0.5
    torch.testing.assert_close(centre_of_mass(image), torch.tensor([[7 / 8, -3 / 8]]))


def test_the_same_generator_gives_the_same_clips_and_another_seed_others():
    one, same, other = (make_clips(8, 5, generator(seed), coins=True, noise="still") for seed in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(vars(one).values(), vars(same).values(), strict=True))
    assert not torch.equal(one.frames, other.frames)


def test_no_handwriting_of_the_test_is_in_the_training():
    written = {split: {ink.numpy().tobytes() for ink in handwriting(split)[0]} for split in SPLITS}
    assert len(written["train"]) > 1400
    assert not written["train"] & written["test"]
    for split in SPLITS:
        clips = make_clips(50, 1, generator(5), split)
        assert {ink.numpy().tobytes() for ink in clips.ink} <= written[split]


def test_coins_turn_the_movement_along_the_wall_at_hits_and_nowhere_else():
    clips = make_clips(200, 30, generator(6), coins=True)
    before, after = clips.velocities[:-1], clips.velocities[1:]
    turned, hits = before.sign() != after.sign(), clips.hits[1:]
    assert not turned[~hits].any()
    torch.testing.assert_close(before.abs(), after.abs())  # speeds stay, only directions turn
    assert clips.positions.min() >= LOW
    assert clips.positions.max() <= HIGH
    assert 0.45 < (clips.coins > 0).float().mean() < 0.55
    assert (make_clips(50, 9, generator(6)).coins == 1).all()


def test_one_of_the_two_futures_is_what_happened():
    clips = make_clips(40, 9, generator(7), coins=True)
    on, back = futures(clips)
    happened = torch.where((clips.coins[2:] > 0)[..., None, None, None], on, back)
    torch.testing.assert_close(happened, clips.frames[2:], rtol=1e-4, atol=1e-4)
    apart = (on - back).flatten(2).abs().amax(dim=2) > 1e-3
    assert torch.equal(apart, clips.hits[2:])


def test_grain_is_still_or_flickers():
    paper = {noise: make_clips(4, 6, generator(8), noise=noise).frames for noise in NOISES}
    corner = {noise: frames[:, :, 0, 0, 0] for noise, frames in paper.items()}  # where no ink ever is
    assert (corner[""] == 0).all()
    assert (corner["still"] == corner["still"][0]).all()
    assert corner["still"].std(dim=1).min() > 0
    assert (corner["flicker"].std(dim=0) > 0).all()


@pytest.mark.parametrize(("call", "name"), [
    (lambda: make_clips(0, 5, generator(0)), "N"),
    (lambda: make_clips(5, 2.5, generator(0)), "T"),
    (lambda: make_clips(5, 5, generator(0), "validation"), "split"),
    (lambda: make_clips(5, 5, generator(0), noise="loud"), "noise"),
])
def test_bad_input_is_named_in_one_line(call, name):
    with pytest.raises(InputError) as error:
        call()
    assert error.value.parameter == name
    assert "\n" not in str(error.value)
