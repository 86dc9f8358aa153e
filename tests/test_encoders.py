"""An encoder leaves and comes back: saved, loaded, exported, loaded by torch.hub."""

from dataclasses import asdict

import pytest
import torch
from conftest import ROOT

from jepa_utils import encoders, probe
from jepa_utils.config import TrainConfig
from jepa_utils.encoders import build_encoder, in_batches, load_encoder, save_encoder
from jepa_utils.models import build_model, embeddings, settle_batchnorm
from jepa_utils.runtime import InputError, generator

IMAGES = torch.rand(5, 3, 32, 32, generator=generator(0))
CONFIGS = {
    "resnet5": TrainConfig(dobs=3, henc=4, dstc=8, stride=2), "gray": TrainConfig(henc=4),
    "whitenet": TrainConfig(model_type="whitenet", dobs=3, henc=4, dstc=8),
    "resnet": TrainConfig(model_type="resnet", dobs=3), "vit_s": TrainConfig(model_type="vit_s", dobs=3, patch_size=16),
}


@pytest.fixture(params=CONFIGS)
def made(request):
    """An encoder with statistics of its own, and the configuration that it was made by."""
    config = CONFIGS[request.param]
    mean, std = [0.4, 0.5, 0.6][: config.dobs], [0.2, 0.3, 0.1][: config.dobs]
    return settle_batchnorm(build_model(config, mean, std), IMAGES[:, : config.dobs]).encoder, config


def test_a_saved_encoder_comes_back_with_its_normalisation_in_evaluation_mode(made, tmp_path):
    encoder, config = made
    path = save_encoder(encoder.train(), config, tmp_path / "new")
    encoder.eval()
    for place in (tmp_path / "new", path, str(path)):
        loaded = load_encoder(place)
        assert not loaded.training
        assert loaded.features == encoder.features
        assert torch.equal(loaded(IMAGES[:, : config.dobs]), encoder(IMAGES[:, : config.dobs]))
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["encoder.pt"]


def test_the_file_holds_plain_tensors_and_the_whole_configuration(made, tmp_path):
    encoder, config = made
    saved = torch.load(save_encoder(encoder, config, tmp_path), weights_only=True)  # runs no code from the file
    assert saved["config"] == asdict(config)
    assert all(value.device.type == "cpu" for value in saved["weights"].values())


def changed(**changes):
    """Writes an encoder's file with other entries than it has."""
    def spoil(path):
        torch.save(torch.load(path, weights_only=True) | changes, path)
    return spoil


SPOILED = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("no encoder", encoding="utf-8"),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-500]),
    "weights alone": lambda path: torch.save(torch.load(path, weights_only=True)["weights"], path),
    "a list": lambda path: torch.save([1, 2], path),
    "another format": changed(format="somebody's encoder"),
    "a later version": changed(version=2),
    "no version": lambda path: torch.save({k: v for k, v in torch.load(path, weights_only=True).items()
                                           if k != "version"}, path),
    "no configuration": changed(config={}),
    "an unknown model": changed(config=asdict(CONFIGS["resnet5"]) | {"model_type": "resnet50"}),
    "another width": changed(config=asdict(CONFIGS["resnet5"]) | {"dstc": 16}),
    "no weights": changed(weights={}),
    "weights of text": changed(weights="none"),
}


@pytest.mark.fault("damaged or foreign checkpoints and encoders")
@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
def test_a_file_that_is_no_whole_encoder_is_refused_in_one_line_that_names_it(tmp_path, spoil):
    path = save_encoder(build_encoder(dobs=3, henc=4, dstc=8, stride=2), CONFIGS["resnet5"], tmp_path)
    spoil(path)
    with pytest.raises(InputError, match=rf"^path: '{path}' was given; accepted: ") as refused:
        load_encoder(tmp_path if path.exists() else path)
    assert "\n" not in str(refused.value)


def test_nothing_in_a_file_is_executed(tmp_path):
    class MakesAFolder:
        def __reduce__(self):
            return __import__("os").mkdir, (str(tmp_path / "made"),)

    torch.save({"format": encoders.FORMAT, "weights": MakesAFolder()}, tmp_path / "encoder.pt")
    with pytest.raises(InputError):
        load_encoder(tmp_path)
    assert not (tmp_path / "made").exists()


def test_torch_hub_loads_the_shipped_encoder():
    shipped = torch.hub.load(str(ROOT), "cifar10_encoder", source="local")
    assert torch.equal(shipped(IMAGES), load_encoder(ROOT / "assets" / "encoder_cifar10.pt")(IMAGES))
    assert shipped(IMAGES).shape == (5, 256)


@pytest.mark.slow
def test_an_exported_encoder_gives_the_same_features_for_any_number_of_images(made):
    encoder, config = made
    some = torch.rand(2, config.dobs, 32, 32)
    exported = torch.export.export(encoder, (some,), dynamic_shapes=({0: torch.export.Dim("N")},))  # the README's line
    for N in (2, 5):
        torch.testing.assert_close(exported.module()(IMAGES[:N, : config.dobs]), encoder(IMAGES[:N, : config.dobs]))


# -------------------------------------------------------------------------------------------- images that are odd


def test_a_constant_channel_becomes_zero_not_infinite():
    only_green = torch.zeros(8, 3, 32, 32, dtype=torch.uint8)
    only_green[:, 1] = torch.randint(0, 256, (8, 32, 32), dtype=torch.uint8, generator=generator(0))
    encoder = build_encoder(dobs=3, henc=4, mean=[0.0, 0.5, 0.0], std=[0.0, 0.3, 0.0])
    normalised = encoder.normalize(only_green)
    assert torch.equal(normalised[:, ::2], torch.zeros(8, 2, 32, 32))
    assert normalised[:, 1].std() > 0.5


@pytest.mark.fault("images that are none, to features and embeddings")
@pytest.mark.parametrize("shape", [(16, 64), (33, 33), (39, 39), (64, 64), (16, 16)], ids=str)
def test_a_vit_refuses_images_of_another_size_than_its_positions(shape):
    with pytest.raises(InputError, match=rf"^images: '{shape[0]} x {shape[1]} pixels' was given; accepted: '?32 x 32"):
        build_encoder("vit_s", dobs=3, patch_size=8)(torch.rand(1, 3, *shape))


ODD_IMAGES = {
    "int64": torch.zeros(2, 3, 32, 32, dtype=torch.int64), "bool": torch.zeros(2, 3, 32, 32, dtype=torch.bool),
    "int16": torch.zeros(2, 3, 32, 32, dtype=torch.int16), "0 to 255": 255 * IMAGES, "-1 to 1": 2 * IMAGES - 1,
    "NaN": torch.full((2, 3, 32, 32), torch.nan), "infinite": torch.full((2, 3, 32, 32), torch.inf),
    "one image": IMAGES[0], "flat": IMAGES.flatten(1), "channels last": IMAGES.permute(0, 2, 3, 1),
    "gray": IMAGES[:, :1], "four channels": torch.rand(2, 4, 32, 32), "an array": IMAGES.numpy(), "nothing": None,
}


@pytest.mark.fault("images that are none, to features and embeddings")
@pytest.mark.parametrize("images", ODD_IMAGES.values(), ids=ODD_IMAGES)
def test_features_and_embeddings_refuse_images_that_are_none(images):
    model = build_model(CONFIGS["resnet5"])
    for call in (lambda: probe.features(model.encoder, images), lambda: embeddings(model, images)):
        with pytest.raises(InputError, match=r"^images: "):
            call()


def test_features_and_embeddings_leave_the_model_in_the_mode_it_was_in():
    model = build_model(CONFIGS["resnet5"])
    for training in (True, False):
        model.train(training)
        probe.features(model.encoder, IMAGES), embeddings(model, IMAGES)
        assert model.training == model.encoder.training == training


def test_in_batches_is_the_function_of_all_at_once():
    encoder = build_encoder(dobs=3, henc=4).eval()
    with torch.no_grad():
        torch.testing.assert_close(in_batches(encoder, encoder, IMAGES, batch_size=2), encoder(IMAGES))


def test_batchnorm_is_settled_where_one_image_is_left_over():
    model = build_model(CONFIGS["resnet5"])
    settle_batchnorm(model, torch.rand(257, 3, 32, 32, generator=generator(0)))
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())


def test_a_model_is_built_without_touching_the_callers_random_numbers():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    build_model(CONFIGS["resnet5"])
    assert torch.equal(torch.rand(3), expected)
