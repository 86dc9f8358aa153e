import pytest
import torch
import torchvision
from torch import nn

from jepa_utils.augment import partial_views
from jepa_utils.config import TrainConfig
from jepa_utils.data import Dataset
from jepa_utils.encoders import Normalize, build_encoder, whiten
from jepa_utils.models import build_model, build_predictor, build_projector, count_parameters, positions_as_samples
from jepa_utils.runtime import InputError, generator
from jepa_utils.train import new_model


def resnet5_parameters(dobs, henc, dstc):
    """Five 3x3 convolutions, two 1x1 shortcuts, two numbers per channel of every norm."""
    convolutions = 9 * (dobs * henc + henc * 2 * henc + (2 * henc) ** 2 + 2 * henc * dstc + dstc**2)
    shortcuts = henc * 2 * henc + 2 * henc * dstc
    return convolutions + shortcuts + 2 * (henc + 3 * 2 * henc + 3 * dstc)


def images(N=4, C=3, seed=0):
    return torch.rand(N, C, 32, 32, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("options", "features", "side", "parameters"), [
    ({}, 16, 8, resnet5_parameters(1, 32, 16)),
    ({"dobs": 3, "henc": 8, "dstc": 24, "stride": 2}, 24, 4, resnet5_parameters(3, 8, 24)),
    ({"model_type": "whitenet", "dobs": 3, "henc": 8, "dstc": 24}, 24, 8, None),
    ({"model_type": "resnet", "dobs": 3}, 512, 4, None),
    ({"model_type": "resnet", "dobs": 1}, 512, 4, None),
    ({"model_type": "vit_s", "dobs": 3, "patch_size": 8}, 384, 4, None),
    ({"model_type": "vit_b", "dobs": 1, "patch_size": 16}, 768, 2, None),
], ids=["resnet5", "resnet5-small", "whitenet", "resnet", "resnet-gray", "vit_s", "vit_b"])
def test_encoders_have_their_shapes_and_pool_their_maps(options, features, side, parameters):
    encoder = build_encoder(**options).eval()
    x = images(2, options.get("dobs", 1))
    with torch.no_grad():
        maps, h = encoder.maps(x), encoder(x)
    assert maps.shape == (2, features, side, side)
    assert h.shape == (2, features) == (2, encoder.features)
    torch.testing.assert_close(h, maps.mean(dim=(2, 3)))
    assert not torch.allclose(h[0], h[1])
    if parameters:
        assert count_parameters(encoder) == parameters


def test_resnet5_has_five_convolutions_beside_its_shortcuts():
    assert sum(isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3) for m in build_encoder().modules()) == 5


def test_resnet_is_torchvisions_but_for_stem_pooling_and_head():
    encoder = build_encoder("resnet", dobs=3).eval()
    peer = torchvision.models.resnet18()
    stem, head = 64 * 3 * (7 * 7 - 3 * 3), 512 * 1000 + 1000
    assert count_parameters(encoder) == count_parameters(peer) - stem - head
    parts = dict(zip(("conv1", "bn1", "relu", "layer1", "layer2", "layer3", "layer4"), encoder.body, strict=True))
    for name, part in (parts | {"maxpool": nn.Identity(), "fc": nn.Identity()}).items():
        setattr(peer, name, part)
    with torch.no_grad():
        torch.testing.assert_close(encoder(images(2)), peer.eval()(encoder.normalize(images(2))))


@pytest.mark.parametrize(("name", "patch_size", "peer"), [
    ("vit_s", 16, "vit_small_patch16_224"), ("vit_b", 8, "vit_base_patch16_224"),
])
def test_vits_have_the_parameters_of_timms(name, patch_size, peer):
    timm = pytest.importorskip("timm")
    with torch.device("meta"):  # counted, not initialised
        ours = build_encoder(name, 3, patch_size=patch_size)
        theirs = timm.create_model(peer, img_size=32, patch_size=patch_size, class_token=False,
                                   global_pool="avg", num_classes=0)
    assert count_parameters(ours) == count_parameters(theirs)


def natural(N, C=3):
    """Images whose neighbouring pixels and colours are alike, as bytes."""
    x = torch.randn(N, C, 40, 40, generator=generator(0)).cumsum(2).cumsum(3)[..., 8:, 8:]
    x = x + 2 * x.mean(dim=1, keepdim=True)
    low, high = x.amin(dim=(1, 2, 3), keepdim=True), x.amax(dim=(1, 2, 3), keepdim=True)
    return (255 * (x - low) / (high - low)).to(torch.uint8)


def test_a_whitening_stem_gives_uncorrelated_patches_of_unit_variance_and_their_negatives():
    encoder, x = build_encoder("whitenet", 3, 24, 16), natural(400)
    whiten(encoder, x)
    with torch.no_grad():
        plus, minus = encoder.body[0](encoder.normalize(x))[..., 1:-1, 1:-1].chunk(2, dim=1)  # no padding
    assert torch.equal(plus, -minus)
    covariance = plus.transpose(0, 1).flatten(1).double().cov()
    values = torch.diagonal(covariance)
    assert values[0] == pytest.approx(1, abs=0.1)  # the leading direction; the last are damped by eps
    assert (values.diff() < 0.05).all()
    torch.testing.assert_close(covariance, torch.diag(values), rtol=0, atol=0.1)


def test_a_whitening_stem_wider_than_its_patches_keeps_the_rest_as_it_was():
    encoder, x = build_encoder("whitenet", 1, 48, 16), natural(50, 1)
    before = encoder.body[0].weight.detach().clone()
    whiten(encoder, x)
    changed = (encoder.body[0].weight != before).flatten(1).any(dim=1)
    assert changed.tolist() == [True] * 32 + [False] * 16


def test_a_new_model_starts_whitened():
    x = natural(300)
    images = Dataset("made", ("a",), x[:250], torch.zeros(250).long(), x[250:], torch.zeros(50).long())
    config = TrainConfig(model_type="whitenet", dobs=3, henc=24, dstc=16)
    made, random = new_model(config, images), build_model(config, *images.statistics())
    assert not torch.equal(made.encoder.body[0].weight, random.encoder.body[0].weight)
    whiten(random.encoder, images.train_images)
    assert all(map(torch.equal, made.parameters(), random.parameters()))


def test_whitening_leaves_other_encoders_alone():
    encoder = build_encoder(dobs=3, henc=4, dstc=8)
    before = [p.clone() for p in encoder.parameters()]
    whiten(encoder, natural(10))
    assert all(map(torch.equal, encoder.parameters(), before))


@pytest.mark.parametrize("patch_size", [4, 16])
def test_a_vit_sees_as_many_tokens_as_there_are_patches(patch_size):
    encoder, seen = build_encoder("vit_s", 3, patch_size=patch_size).eval(), []
    encoder.body.blocks.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape))
    encoder(images(1))
    assert seen == [(1, (32 // patch_size) ** 2, 384)]


@pytest.mark.parametrize("patch_size", [0, -4, 5, 64])
def test_a_patch_size_that_does_not_divide_the_image_is_refused(patch_size):
    with pytest.raises(InputError, match=f"^patch_size: {patch_size} "):
        build_encoder("vit_s", 3, patch_size=patch_size)


def test_vit_maps_lie_where_their_patches_do():
    encoder, x = build_encoder("vit_s", 3, patch_size=8).eval(), images(2)
    with torch.no_grad():
        told = encoder.maps(x.roll(8, dims=3)) - encoder.maps(x).roll(1, dims=3)
        encoder.body.positions.zero_()  # without them a patch is treated alike wherever it is
        for axis in (2, 3):
            shifted, expected = encoder.maps(x.roll(8, dims=axis)), encoder.maps(x).roll(1, dims=axis)
            torch.testing.assert_close(shifted, expected, rtol=1e-4, atol=1e-4)
    assert told.abs().max() > 1e-2


def test_unknown_names_are_refused():
    with pytest.raises(InputError, match=r"^model_type: 'resnet50'.*resnet5, whitenet, resnet, vit_s, vit_b"):
        build_encoder("resnet50")
    with pytest.raises(InputError, match=r"^predictor: 'rnn'.*identity, mlp, conv"):
        build_predictor("rnn", 8)


def test_normalize_standardises_bytes_and_floats_alike():
    x = (images(50) * 255).to(torch.uint8)
    scaled = x.double() / 255
    mean, std = scaled.mean(dim=(0, 2, 3)), scaled.std(dim=(0, 2, 3))
    normalize = Normalize(mean.tolist(), std.tolist())
    out = normalize(x)
    assert out.dtype == torch.float32
    assert torch.equal(out, normalize(x.float() / 255))
    torch.testing.assert_close(out.mean(dim=(0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(out.std(dim=(0, 2, 3)), torch.ones(3), rtol=0, atol=1e-5)
    shift = build_encoder(dobs=3).normalize
    torch.testing.assert_close(shift(x), (2 * scaled - 1).float())


@pytest.mark.parametrize("shape", [(2, 3, 32, 32), (1, 32, 32)], ids=str)
def test_images_of_another_shape_are_refused(shape):
    with pytest.raises(InputError, match=r"^images: .*\(N, 1, H, W\)"):
        build_encoder(dobs=1)(torch.zeros(shape))


@pytest.mark.parametrize(("widths", "sizes"), [
    ("", []), ("8", [(6, 8)]), ("16-8", [(6, 16), (16, 8)]), ("16-16-4", [(6, 16), (16, 16), (16, 4)]),
])
def test_projectors_have_their_widths_and_end_plain(widths, sizes):
    projector = build_projector(6, widths)
    linear = [m for m in projector.modules() if isinstance(m, nn.Linear)]
    assert [(m.in_features, m.out_features) for m in linear] == sizes
    last = [i == len(sizes) - 1 for i in range(len(sizes))]
    assert [m.bias is not None for m in linear] == last  # after the others a norm removes a bias
    for kind in (nn.BatchNorm1d, nn.ReLU):  # between layers, never after the last
        assert sum(isinstance(m, kind) for m in projector.modules()) == max(0, len(sizes) - 1)
    h = torch.randn(5, 6)
    if sizes:
        assert projector[-1] is linear[-1]
        assert projector(h).shape == (5, sizes[-1][1])
    else:
        assert projector(h) is h


@pytest.mark.parametrize(("kind", "shape", "parameters"), [
    ("identity", (5, 6), 0),
    ("mlp", (5, 6), 6 * 7 + 2 * 7 + (7 * 6 + 6)),
    ("conv", (5, 6, 4, 3), 9 * 6 * 7 + 2 * 7 + 9 * 7 * 7 + 2 * 7 + (7 * 6 + 6)),
])
def test_predictors_keep_the_shape(kind, shape, parameters):
    predictor, z = build_predictor(kind, 6, hpre=7), torch.randn(shape)
    assert predictor(z).shape == shape
    assert count_parameters(predictor) == parameters
    assert (predictor(z) is z) == (kind == "identity")


@pytest.fixture(params=["joint", "bare", "mlp", "dense"])
def recipe(request):
    options = {
        "joint": {"projector": "24-12"},
        "bare": {},
        "mlp": {"projector": "24-12", "predictor": "mlp"},
        "dense": {"predictor": "conv"},
    }[request.param]
    return request.param, build_model(TrainConfig(dobs=3, henc=4, dstc=10, stride=2, **options))


def test_jepa_outputs(recipe):
    kind, model = recipe
    V, N, (H, W) = 3, 5, (4, 4)
    views = torch.stack([images(N, seed=v) for v in range(V)])
    with torch.no_grad():
        h, z, predicted = model.eval()(views)
        for v in range(V):
            torch.testing.assert_close(h[v], model.encoder(views[v]))
        if kind == "dense":
            maps = model.encoder.maps(views[1])
            assert z.shape == (V, N * H * W, 10)
            torch.testing.assert_close(z[1, 2 * H * W + 3 * W + 1], maps[2, :, 3, 1])
            guess = model.predictor(model.encoder.maps(views[0]))
            torch.testing.assert_close(predicted[0, 2 * H * W + 3 * W + 1], guess[2, :, 3, 1])
        else:
            assert z.shape == (V, N, 10 if kind == "bare" else 12)
            torch.testing.assert_close(z[1], model.projector(h[1]))
        if kind == "mlp":
            torch.testing.assert_close(predicted[0], model.predictor(z[0]))
    assert h.shape == (V, N, 10)
    identity = kind in ("joint", "bare")
    assert predicted.shape == z[: V if identity else 1].shape
    assert torch.equal(predicted, z) == identity
    assert torch.equal(z, h) == (kind == "bare")


def test_every_weight_of_a_jepa_learns(recipe):
    _, model = recipe
    _, z, predicted = model(torch.stack([images(6, seed=v) for v in range(2)]))
    (predicted.square().sum() + z.pow(4).sum()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_positions_become_samples_image_by_image_and_row_by_row():
    z = torch.randn(2, 3, 5, 4, 6)  # (V, N, D, H, W)
    samples = positions_as_samples(z)
    assert samples.shape == (2, 3 * 4 * 6, 5)
    for v, n, i, j in ((0, 0, 0, 1), (1, 2, 3, 5), (0, 1, 2, 0)):
        assert torch.equal(samples[v, (n * 4 + i) * 6 + j], z[v, n, :, i, j])
    flat = torch.randn(2, 3, 5)
    assert positions_as_samples(flat) is flat


def test_partial_views_are_a_half_hidden_image_and_the_whole():
    whole = images(6)
    partial, target = partial_views(whole[None], torch.Generator().manual_seed(0))
    assert torch.equal(target, whole)
    changed = (partial != whole).any(dim=1).flatten(1).float().mean(dim=1)
    assert (changed == 0.5).all()


def test_the_seed_decides_the_weights():
    def weights(seed):
        torch.rand(7)  # whatever was drawn before must not matter
        model = build_model(TrainConfig(henc=4, projector="8-8", predictor="mlp", seed=seed))
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))
