"""The JEPA of clips at smoke scale, and its probes."""

import pytest
import torch
from torch import nn

from jepa_utils import spectra, video
from jepa_utils.moving_digits import make_clips, signs
from jepa_utils.runtime import InputError, generator


def test_a_rollout_is_the_predictor_applied_again_and_again():
    predictor, (before, now) = video.TemporalPredictor(4, 8), torch.randn(2, 3, 4, generator=generator(0))
    path = video.rollout(predictor, before, now, 3)
    first = predictor(before, now)
    second = predictor(now, first)
    torch.testing.assert_close(path, torch.stack([first, second, predictor(first, second)]))


def test_embeddings_are_those_of_every_frame_in_evaluation_mode_and_the_mode_stays():
    encoder, frames = video.frame_encoder(4, 4), make_clips(5, 3, generator(0)).frames
    for training in (True, False):
        z = video.embed(encoder.train(training), frames, clips=2)
        assert encoder.training == training
        assert not z.requires_grad
        with torch.no_grad():
            torch.testing.assert_close(z, torch.stack([encoder.eval()(frame) for frame in frames]))


def test_guesses_meet_the_frames_they_guess():
    z = torch.arange(6.0)[:, None, None].expand(6, 2, 3)
    terms = video.loss_terms(lambda before, now: 2 * now - before, z, video.no_regularizer, 0)
    assert terms == {"prediction": 0}


def test_best_of_counts_each_samples_best_guess():
    target = torch.zeros(2, 1)
    guess = torch.tensor([[[1.0], [4.0]], [[3.0], [2.0]]])  # (K, N, D)
    assert video.best_of(guess, target) == (1 + 4) / 2


def test_probes_read_what_is_there():
    known, unseen = (make_clips(60, 6, generator(i)) for i in range(2))
    told = [torch.cat([nn.functional.one_hot(c.digits, 10).float().expand(6, -1, -1), c.positions], dim=2)
            for c in (known, unseen)]
    read = video.probes(told[0], known, told[1], unseen)
    assert read["digit"][0] > 0.95
    assert read["position"][0] > 0.99
    assert read["velocity, one frame"][0] < 0.3
    assert read["velocity, two frames"][0] > 0.6
    for value, low, high in read.values():
        assert low <= value <= high


def test_a_readout_of_features_that_are_all_dead_is_the_mean():
    y = torch.randn(20, 2, generator=generator(0))
    for h in (torch.zeros(20, 3), torch.full((20, 3), 0.5)):
        torch.testing.assert_close(video.linear_readout(h, y, h[:4]), y.mean(dim=0).expand(4, 2))


def test_without_a_regularizer_z_collapses_and_with_one_it_does_not():
    unseen, std = make_clips(32, 6, generator(1), "test"), {}
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
    coins = signs(6, 200, g)
    z = torch.zeros(6, 200, 3)
    z[2:, :, 0] = coins[2:]  # the next z is the coin, and nothing in the past tells it
    predictor = video.fit_predictor(way, z, coins, 150)
    error = (video.guesses_in(way, predictor, z, coins) - z[2:]).square().sum(dim=-1).min(dim=0).values.mean()
    assert error > 0.8 if way == "no variable" else error < 0.3


@pytest.mark.parametrize(("call", "name"), [
    (lambda: video.frame_encoder(0), "D"),
    (lambda: video.encode(video.frame_encoder(4), torch.zeros(5, 1, 32, 32)), "frames"),
    (lambda: video.embed(video.frame_encoder(4), torch.zeros(5, 1, 32, 32)), "frames"),
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
