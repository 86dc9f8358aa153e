"""Moving digits against an independent oracle; the video JEPA at smoke scale."""

import pytest
import torch
from torch import nn

from jepa_utils import spectra, video
from jepa_utils.runtime import InputError, generator


def triangle(start, velocity, t):
    """Where something is after t frames between two walls that reflect: a triangle wave, without any steps."""
    width = video.HIGH - video.LOW
    way = (start - video.LOW + velocity * t) % (2 * width)
    return video.LOW + torch.where(way > width, 2 * width - way, way)


def test_digits_move_along_a_triangle_wave():
    clips = video.moving_digits(64, 40, generator(0))
    start, velocity = clips.positions[0].double(), clips.velocities[0].double()
    for t in range(40):
        torch.testing.assert_close(clips.positions[t].double(), triangle(start, velocity, t), rtol=0, atol=1e-4)


def test_the_ink_lies_where_positions_say_and_none_of_it_is_lost():
    for split in video.SPLITS:
        clips = video.moving_digits(300, 12, generator(1), split)
        found = 16 * (video.centre_of_mass(clips.frames) + 1)
        torch.testing.assert_close(found, clips.positions, rtol=0, atol=1e-3)
        ink = clips.frames.sum(dim=(2, 3, 4))
        torch.testing.assert_close(ink, clips.ink.sum(dim=(1, 2, 3)).expand_as(ink), rtol=1e-4, atol=1e-4)
        assert clips.frames.min() >= 0
        assert clips.frames.max() <= 1


def test_centre_of_mass_of_a_single_pixel():
    image = torch.zeros(1, 1, 8, 8)
    image[0, 0, 2, 7] = 0.5
    torch.testing.assert_close(video.centre_of_mass(image), torch.tensor([[7 / 8, -3 / 8]]))


def test_the_same_generator_gives_the_same_clips_and_another_seed_others():
    one, same, other = (video.moving_digits(8, 5, generator(seed), coins=True, noise="still") for seed in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(vars(one).values(), vars(same).values(), strict=True))
    assert not torch.equal(one.frames, other.frames)


def test_no_handwriting_of_the_test_is_in_the_training():
    written = {split: {ink.numpy().tobytes() for ink in video.handwriting(split)[0]} for split in video.SPLITS}
    assert len(written["train"]) > 1400
    assert not written["train"] & written["test"]
    for split in video.SPLITS:
        clips = video.moving_digits(50, 1, generator(5), split)
        assert {ink.numpy().tobytes() for ink in clips.ink} <= written[split]


def test_coins_turn_the_movement_along_the_wall_at_hits_and_nowhere_else():
    clips = video.moving_digits(200, 30, generator(6), coins=True)
    before, after = clips.velocities[:-1], clips.velocities[1:]
    turned, hits = before.sign() != after.sign(), clips.hits[1:]
    assert not turned[~hits].any()
    torch.testing.assert_close(before.abs(), after.abs())  # speeds stay, only directions turn
    assert clips.positions.min() >= video.LOW
    assert clips.positions.max() <= video.HIGH
    assert 0.45 < (clips.coins > 0).float().mean() < 0.55
    assert (video.moving_digits(50, 9, generator(6)).coins == 1).all()


def test_one_of_the_two_futures_is_what_happened():
    clips = video.moving_digits(40, 9, generator(7), coins=True)
    on, back = video.futures(clips)
    happened = torch.where((clips.coins[2:] > 0)[..., None, None, None], on, back)
    torch.testing.assert_close(happened, clips.frames[2:], rtol=1e-4, atol=1e-4)
    apart = (on - back).flatten(2).abs().amax(dim=2) > 1e-3
    assert torch.equal(apart, clips.hits[2:])


def test_grain_is_still_or_flickers():
    paper = {noise: video.moving_digits(4, 6, generator(8), noise=noise).frames for noise in video.NOISES}
    corner = {noise: frames[:, :, 0, 0, 0] for noise, frames in paper.items()}  # where no ink ever is
    assert (corner[""] == 0).all()
    assert (corner["still"] == corner["still"][0]).all()
    assert corner["still"].std(dim=1).min() > 0
    assert (corner["flicker"].std(dim=0) > 0).all()


def test_a_rollout_is_the_predictor_applied_again_and_again():
    predictor, (before, now) = video.TemporalPredictor(4, 8), torch.randn(2, 3, 4, generator=generator(0))
    path = video.rollout(predictor, before, now, 3)
    first = predictor(before, now)
    second = predictor(now, first)
    torch.testing.assert_close(path, torch.stack([first, second, predictor(first, second)]))


def test_guesses_meet_the_frames_they_guess():
    z = torch.arange(6.0)[:, None, None].expand(6, 2, 3)
    terms = video.loss_terms(lambda before, now: 2 * now - before, z, video.no_regularizer, 0)
    assert terms == {"prediction": 0}


def test_best_of_counts_each_samples_best_guess():
    target = torch.zeros(2, 1)
    guess = torch.tensor([[[1.0], [4.0]], [[3.0], [2.0]]])  # (K, N, D)
    assert video.best_of(guess, target) == (1 + 4) / 2


def test_probes_read_what_is_there():
    known, unseen = (video.moving_digits(60, 6, generator(i)) for i in range(2))
    told = [torch.cat([nn.functional.one_hot(c.digits, 10).float().expand(6, -1, -1), c.positions], dim=2)
            for c in (known, unseen)]
    read = video.probes(told[0], known, told[1], unseen)
    assert read["digit"][0] > 0.95
    assert read["position"][0] > 0.99
    assert read["velocity, one frame"][0] < 0.3
    assert read["velocity, two frames"][0] > 0.6
    for value, low, high in read.values():
        assert low <= value <= high


def test_without_a_regularizer_z_collapses_and_with_one_it_does_not():
    unseen, std = video.moving_digits(32, 6, generator(1), "test"), {}
    for name, regularizer in (("none", video.no_regularizer), ("vicreg", video.vicreg_terms()),
                              ("sigreg", video.sigreg_term())):
        torch.manual_seed(0)
        encoder, predictor = video.frame_encoder(8, 8), video.TemporalPredictor(8, 32)
        log = video.train(encoder, predictor, regularizer, 40, generator(0), N=32, T=5, lr=2e-2)
        std[name] = spectra.collapse_report(video.embed(encoder, unseen.frames).flatten(0, 1)).std
        assert len(log) == 40
    assert 4 * std["none"] < min(std["vicreg"], std["sigreg"])


def test_training_repeats_and_leaves_the_models_in_evaluation_mode():
    logs = []
    for _ in range(2):
        torch.manual_seed(0)
        encoder, predictor = video.frame_encoder(4, 4), video.TemporalPredictor(4, 8)
        logs.append(video.train(encoder, predictor, video.vicreg_terms(), 3, generator(0), N=8, T=4))
        assert not encoder.training
    assert logs[0] == logs[1]


@pytest.mark.parametrize("way", video.WAYS)
def test_predictors_learn_on_frozen_embeddings(way):
    g = generator(0)
    coins = video.signs(6, 200, g)
    z = torch.zeros(6, 200, 3)
    z[2:, :, 0] = coins[2:]  # the next z is the coin, and nothing in the past tells it
    predictor = video.fit_predictor(way, z, coins, 150)
    error = (video.guesses_in(way, predictor, z, coins) - z[2:]).square().sum(dim=-1).min(dim=0).values.mean()
    assert error > 0.8 if way == "no variable" else error < 0.3


@pytest.mark.parametrize(("call", "name"), [
    (lambda: video.moving_digits(0, 5, generator(0)), "N"),
    (lambda: video.moving_digits(5, 2.5, generator(0)), "T"),
    (lambda: video.moving_digits(5, 5, generator(0), "validation"), "split"),
    (lambda: video.moving_digits(5, 5, generator(0), noise="loud"), "noise"),
    (lambda: video.frame_encoder(0), "D"),
    (lambda: video.encode(video.frame_encoder(4), torch.zeros(5, 1, 32, 32)), "frames"),
    (lambda: video.guesses(torch.add, torch.zeros(2, 5, 3)), "z"),
    (lambda: video.rollout(torch.add, torch.zeros(5, 3), torch.zeros(5, 3), 0), "steps"),
    (lambda: video.train(video.frame_encoder(4), video.TemporalPredictor(4), video.no_regularizer, 1, generator(0),
                         T=2), "T"),
    (lambda: video.train(video.frame_encoder(4), video.TemporalPredictor(4), video.no_regularizer, 1, generator(0),
                         lr=0), "lr"),
    (lambda: video.fit_predictor("by magic", torch.zeros(4, 5, 3), torch.ones(4, 5), 1), "way"),
    (lambda: video.fit_predictor("no variable", torch.zeros(4, 5, 3), torch.ones(4, 6), 1), "z"),
])
def test_bad_input_is_named_in_one_line(call, name):
    with pytest.raises(InputError) as error:
        call()
    assert error.value.parameter == name
    assert "\n" not in str(error.value)
