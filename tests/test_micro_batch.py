"""A ViT that sees few images at a time trains as one that sees the whole batch, from less memory."""

import weakref
from dataclasses import replace

import pytest
import torch
from conftest import multiply_in
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from training import TINY, Interrupted, fit, interrupt_after, tiny_vit

from jepa_utils import models, runtime
from jepa_utils.config import TrainConfig
from jepa_utils.encoders import Encoder, Normalize, ViT
from jepa_utils.models import JEPA, build_model
from jepa_utils.runtime import InputError, generator
from jepa_utils.train import flops_per_view

PARTS = (1, 4, 5, 12, 100)  # of twelve images: dividing them, or not, or all
RECIPES = {
    "joint": {"projector": "16-8"},
    "bare": {},
    "mlp predictor": {"projector": "16-8", "predictor": "mlp"},
    "predictive": {"predictor": "conv"},
}
VIT = TrainConfig(model_type="vit_s", dobs=3, hpre=4)


@pytest.fixture
def small(monkeypatch):
    """ViTs of a few thousand weights, and full precision."""
    monkeypatch.setattr(models, "build_encoder", tiny_vit)
    multiply_in(monkeypatch, torch.float32)


def views(V=2, N=6):
    return torch.rand(V, N, 3, 32, 32, generator=generator(0))


def loss(z, predicted):
    """A scalar that mixes the rows of z (V, N, D) in every way that the losses do: differences, spreads, products."""
    centred = z - z.mean(dim=1, keepdim=True)
    products = centred.mT @ centred / z.shape[1]
    return (predicted - z.flip(0)[: len(predicted)]).square().mean() + z.std(dim=1).mean() + products.square().mean()


def outcome(config, dtype=torch.float64):
    """What a model gives for a batch, the statistics that its norms keep, and the gradient of every weight."""
    model = build_model(config).to(dtype).train()
    h, z, predicted = model(views())
    value = loss(z, predicted)
    value.backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    return {"h": h, "z": z, "predicted": predicted, "loss": value} | dict(model.named_buffers()), gradients


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("micro_batch", PARTS)
def test_values_statistics_and_gradients_are_those_of_the_whole_batch(small, recipe, micro_batch):
    config = replace(VIT, **RECIPES[recipe])
    values, gradients = outcome(config)
    in_parts = outcome(replace(config, micro_batch=micro_batch))
    torch.testing.assert_close(in_parts[0], values, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(in_parts[1], gradients, rtol=1e-8, atol=1e-12)
    shifts = {"encoder.body.blocks.norm.bias", "projector.3.bias"}  # of all rows alike, which a loss need not see
    assert {name for name, gradient in gradients.items() if gradient.abs().max() < 1e-6} <= shifts


def test_a_loss_of_each_part_by_itself_would_have_other_gradients(small):
    """What the test above would see if batch statistics were taken part by part."""
    model = build_model(replace(VIT, projector="16-8")).double().train()
    for part in views().split(3, dim=1):
        _, z, predicted = model(part)
        (loss(z, predicted) / 2).backward()
    _, gradients = outcome(replace(VIT, projector="16-8"))
    assert max((p.grad - gradients[name]).norm() / gradients[name].norm() for name, p in model.named_parameters()) > 0.1


@pytest.mark.slow
def test_a_vit_s_in_micro_batches_has_the_same_gradients_from_a_fraction_of_the_memory():
    gradients, kept = [], []
    for micro_batch in (0, 4):
        model, saved = build_model(TrainConfig(model_type="vit_s", dobs=3, patch_size=4, micro_batch=micro_batch)), []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, saved=saved: saved.append(t.nbytes) or t, lambda t: t):
            h, *_ = model(views(2, 2))
        h.square().mean().backward()
        gradients.append([p.grad for p in model.encoder.parameters()])
        kept.append(sum(saved))
    torch.testing.assert_close(*gradients)
    assert kept[1] < kept[0] / 10


class LiveMemory(TorchDispatchMode):
    """Bytes of the tensors made while it watches: those that exist now, and the most there ever were."""

    def __init__(self):
        super().__init__()
        self.sizes, self.now, self.most = {}, 0, 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        out = operation(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor) and leaf.untyped_storage()._cdata not in self.sizes:
                storage = leaf.untyped_storage()
                self.sizes[storage._cdata] = storage.nbytes()
                self.now += storage.nbytes()
                self.most = max(self.most, self.now)
                weakref.finalize(storage, self.forget, storage._cdata)
        return out

    def forget(self, storage):
        self.now -= self.sizes.pop(storage)


def most_memory(micro_batch, N=32):
    """Of a step's forward and backward."""
    encoder = Encoder(Normalize([0.5] * 3, [0.5] * 3), ViT(3, 32, 4, 2, 4), 32)
    model, x = JEPA(encoder, micro_batch=micro_batch), views(1, N)
    with LiveMemory() as memory:
        model(x)[0].square().mean().backward()
    return memory.most


@pytest.mark.slow
def test_memory_is_that_of_one_part_backward_too():
    whole, eighth, thirty_second = (most_memory(micro_batch) for micro_batch in (0, 4, 1))
    assert whole == pytest.approx(most_memory(32), rel=0.1)
    assert eighth < whole / 5
    assert thirty_second < eighth / 2


def count_images(model):
    """The list that gets the number of images of every pass through the encoder."""
    seen = []
    model.encoder.body.register_forward_pre_hook(lambda _, arguments: seen.append(len(arguments[0])))
    return seen


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_part_is_encoded_twice_in_training_and_all_at_once_otherwise(small, recipe):
    model = build_model(replace(VIT, micro_batch=5, **RECIPES[recipe]))
    seen = count_images(model)
    h, *_ = model(views())
    assert seen == [5, 5, 2]
    h.sum().backward()
    assert sorted(seen) == [2, 2, 5, 5, 5, 5]
    seen.clear()
    with torch.no_grad():
        model(views())
    assert seen == [12]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_what_is_encoded_again_has_the_precision_of_the_first_time(small, monkeypatch, dtype):
    multiply_in(monkeypatch, dtype)
    gradients, seen = [], []
    for micro_batch in (0, 5):
        model = build_model(replace(VIT, micro_batch=micro_batch))
        model.encoder.body.patches.register_forward_hook(lambda *given: seen.append(given[2].dtype))
        with runtime.autocast(torch.device("cpu")):
            _, z, predicted = model(views())
        (2**10 * loss(z.float(), predicted.float())).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert seen == [dtype] * (1 + 6)
    assert (gradients[1] - gradients[0]).norm() < 0.02 * gradients[0].norm()


def test_operations_computed_a_second_time_are_not_counted_as_training(small):
    assert flops_per_view(replace(VIT, micro_batch=1)) == flops_per_view(VIT) > 0


# ------------------------------------------------------------------------------------------ configuration


@pytest.mark.parametrize("model_type", ["resnet5", "resnet"])
def test_encoders_with_batchnorm_are_refused_by_name(model_type):
    with pytest.raises(InputError, match=f"^micro_batch: 4 was given; accepted: 0 with {model_type}: its BatchNorm"):
        TrainConfig(model_type=model_type, dobs=3, micro_batch=4)
    TrainConfig(model_type=model_type, dobs=3, micro_batch=0)


@pytest.mark.parametrize("micro_batch", [-1, 1.5, float("nan")])
def test_what_is_no_number_of_images_is_refused_by_name(micro_batch):
    with pytest.raises(InputError, match=r"^micro_batch: .*a whole number of at least 0"):
        replace(VIT, micro_batch=micro_batch)
    for good in (0, 1, 32):
        replace(VIT, micro_batch=good)


@pytest.mark.slow
@pytest.mark.parametrize(("first", "then"), [(4, 7), (0, 5), (5, 0)])
def test_a_run_resumed_with_another_micro_batch_is_the_same_run(small, tmp_path, first, then):
    # AdamW would enlarge the rounding of gradients that are 0, as those of the keys' biases in attention.
    config = replace(TINY, model_type="vit_s", loss_type="vicreg", optimizer="lars", lr=0.1)
    model, history = fit(config)
    with pytest.raises(Interrupted):
        fit(replace(config, micro_batch=first), tmp_path, on_epoch=interrupt_after(2))
    resumed, resumed_history = fit(replace(config, micro_batch=then), tmp_path, resume=True)
    torch.testing.assert_close(dict(resumed.state_dict()), dict(model.state_dict()), rtol=1e-4, atol=1e-5)
    assert len(resumed_history) == len(history) == 4
    for record, expected in zip(resumed_history, history, strict=True):
        assert record == pytest.approx(expected, rel=1e-4)
