"""Fine-tuning: the head is the probe, the loop starts from what it is given, and learns."""

import pytest
import torch
from torch import nn

from jepa_utils import finetune, probe
from jepa_utils.augment import PRESETS
from jepa_utils.encoders import build_encoder
from jepa_utils.runtime import InputError, generator

CLASSES = 3


def colours(N, seed=0):
    """Noisy images (N, 3, 32, 32), each class with its own channel the brightest, and their labels."""
    g, y = generator(seed), torch.arange(N) % CLASSES
    x = torch.randint(0, 100, (N, 3, 32, 32), generator=g)
    x[torch.arange(N), y] += 120
    return x.to(torch.uint8), y


def features(N, seed=0):
    g, y = generator(seed), torch.arange(N) % CLASSES
    return 5 + 0.01 * (torch.eye(CLASSES, 6)[y] + 0.5 * torch.randn(N, 6, generator=g)), y


def small(seed=0):
    torch.manual_seed(seed)
    encoder = build_encoder(dobs=3, henc=4, dstc=8, stride=2)
    return encoder, nn.Linear(8, CLASSES)


def train(encoder, head, steps=30, **options):
    x, y = colours(12)
    return finetune.train_on_labels(encoder, head, x, y, PRESETS["digits"], steps, batch_size=16, **options)


def state(module):
    return [value.clone() for value in module.state_dict().values()]


def same(one, two):
    return all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_some_labels_has_as_many_of_each_class_none_twice_and_others_at_another_seed():
    y = torch.tensor([0] * 20 + [2] * 20 + [5] * 3)
    pick = finetune.some_labels(y, 4, seed=1)
    assert y[pick].bincount().tolist() == [4, 0, 4, 0, 0, 3]
    assert len(pick.unique()) == len(pick)
    assert torch.equal(pick, finetune.some_labels(y, 4, seed=1))
    assert not torch.equal(pick, finetune.some_labels(y, 4, seed=2))


@pytest.mark.parametrize("each", [4, finetune.ENOUGH])
def test_the_head_scores_features_as_the_probe_scores_standardised_ones(each):
    h, y = features(CLASSES * each)
    everyone, _ = features(200, seed=1)
    _, standard = probe.standardize(everyone, h)
    start = torch.zeros(6, CLASSES), torch.zeros(CLASSES)
    enough = each >= finetune.ENOUGH
    penalty = finetune.best_penalty(standard, y, start) if enough else finetune.PENALTY
    weight, bias = probe.fit_logistic(standard, y, penalty, start)
    head = finetune.probe_head(h, y, CLASSES, everyone)
    torch.testing.assert_close(head(h), standard @ weight + bias, rtol=1e-3, atol=1e-2)
    assert probe.accuracy(head(h), y) > 70


def test_the_head_has_a_row_for_a_class_without_labels():
    h, y = features(9)
    assert finetune.probe_head(h, y, CLASSES + 2)(h).shape == (9, CLASSES + 2)


def test_it_starts_from_what_it_is_given_and_leaves_that_as_it_was():
    encoder, head = small()
    before = state(encoder) + state(head)
    network = train(encoder, head, rates=(0.0, 0.0))
    assert same([p.detach() for p in network.parameters()], [*encoder.parameters(), *head.parameters()])
    train(encoder, head, rates=(1e-2, 1e-2))
    assert same(before, state(encoder) + state(head))


@pytest.mark.parametrize("still", [0, 1])
def test_each_part_has_its_own_rate(still):
    parts = small()
    rates = tuple(0.0 if part == still else 1e-2 for part in (0, 1))
    network = train(*parts, steps=2, rates=rates)
    moved = [not same(list(new.parameters()), list(old.parameters())) for new, old in zip(network, parts, strict=True)]
    assert moved == [still != 0, still != 1]


def test_a_frozen_encoder_is_trained_too():
    encoder, head = small()
    network = train(encoder.requires_grad_(False), head, steps=2, rates=(1e-2, 1e-2))
    assert not same(list(network[0].parameters()), list(encoder.parameters()))


def test_a_few_labels_are_learned_and_a_seed_repeats():
    network = train(*small())
    x, y = colours(60, seed=1)
    with torch.no_grad():
        assert probe.accuracy(network(x), y) > 90
    assert not network.training
    assert same(state(network), state(train(*small())))
    assert not same(state(network), state(train(*small(), seed=1)))


@pytest.mark.parametrize(("name", "options"), [
    ("steps", {"steps": 0}), ("rates", {"rates": (-1, 1e-3)}), ("rates", {"rates": (1e-3, float("nan"))}),
    ("rates", {"rates": (1e-3,)}), ("rates", {"rates": (1e-3,) * 3}), ("rates", {"rates": 0.01}),
])
def test_what_cannot_be_used_is_named(name, options):
    with pytest.raises(InputError, match=rf"^{name}: "):
        train(*small(), **options)


def test_labels_that_do_not_fit_are_named():
    x, y = colours(12)
    with pytest.raises(InputError, match=r"^y: "):
        finetune.train_on_labels(*small(), x, y[:5], PRESETS["digits"], steps=1)
    with pytest.raises(InputError, match=r"^y: "):
        finetune.probe_head(*features(9), classes=2)
