"""Projector, predictor, and the JEPA that joins them to an encoder."""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .config import CHOICES, TrainConfig
from .encoders import Encoder, build_encoder, in_batches
from .pixels import check_images
from .runtime import InputError, seeded


def build_projector(features: int, widths: str = "2048-2048-2048") -> nn.Module:
    """MLP from `h` (..., features) to `z` (..., D) with BatchNorm and ReLU between layers; no widths: `z` is `h`."""
    sizes, layers = [features, *(int(width) for width in widths.split("-") if width)], []
    for c_in, c_out in pairwise(sizes):
        layers += [nn.Linear(c_in, c_out, bias=False), nn.BatchNorm1d(c_out), nn.ReLU()]
    if not layers:
        return nn.Identity()
    # The last layer is plain. It takes the place of one already drawn: a seed's weights depend on that, keep it so.
    return nn.Sequential(*layers[:-3], nn.Linear(sizes[-2], sizes[-1]))


def build_predictor(kind: str, features: int, hpre: int = 32) -> nn.Module:
    """From the embedding of a context view to that of its target.

    identity: the prediction term becomes VICReg's invariance; mlp: on embeddings (N, D); conv: on
    feature maps (N, D, H, W), for the recipe that reconstructs a whole image's maps from a partial view.
    """
    if kind == "identity":
        return nn.Identity()
    if kind == "mlp":
        return nn.Sequential(
            nn.Linear(features, hpre, bias=False), nn.BatchNorm1d(hpre), nn.ReLU(), nn.Linear(hpre, features))
    if kind == "conv":
        return nn.Sequential(
            nn.Conv2d(features, hpre, 3, 1, 1, bias=False), nn.BatchNorm2d(hpre), nn.ReLU(),
            nn.Conv2d(hpre, hpre, 3, 1, 1, bias=False), nn.BatchNorm2d(hpre), nn.ReLU(), nn.Conv2d(hpre, features, 1))
    raise InputError("predictor", kind, ", ".join(map(str, CHOICES["predictor"])))


class JEPA(nn.Module):
    """Encoder, projector and predictor: views in, features, embeddings and predictions out.

    A `dense` model is the predictive recipe, with a convolutional predictor: `z` are feature maps, one
    embedding per position, and the first view is a partial one (see `augment.partial_views`).

    With `micro_batch` a training encoder sees that many views at a time and keeps only their features. When
    the gradient of the loss, taken over the whole batch, reaches them, it sees them once more. Memory holds one
    part, arithmetic grows by a third, and the gradient is exact where the encoder never mixes images, so not with
    BatchNorm (GradCache: Gao et al. 2021, arXiv 2101.06983).
    """

    def __init__(
        self, encoder: Encoder, projector: nn.Module | None = None, predictor: nn.Module | None = None,
        dense: bool = False, micro_batch: int = 0,
    ):
        super().__init__()
        self.encoder, self.dense, self.micro_batch = encoder, dense, micro_batch
        self.projector = projector or nn.Identity()
        self.predictor = predictor or nn.Identity()

    def forward(self, views: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """views (V, N, C, H, W) -> h (V, N, F), z (V, N, D), predicted (P, N, D).

        predicted[i] guesses every other view's z from view i. With the identity P is V; any other
        predictor looks at the first view alone, the context, and P is 1. In the predictive recipe
        every position counts as a sample: z is (V, N*H*W, D).
        """
        V, N = views.shape[:2]
        if self.dense:
            maps = self.encode(self.encoder.maps, views.flatten(0, 1))
            h, z = maps.mean(dim=(2, 3)), maps
        else:
            h = self.encode(self.encoder, views.flatten(0, 1))
            z = self.projector(h)
        h, z = h.unflatten(0, (V, N)), z.unflatten(0, (V, N))
        predicted = z if isinstance(self.predictor, nn.Identity) else self.predictor(z[0])[None]
        return h, positions_as_samples(z), positions_as_samples(predicted)

    def encode(self, encoder: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """encoder(x), in parts of `micro_batch` images if that is set."""
        if not self.micro_batch or not torch.is_grad_enabled():
            return encoder(x)
        parts = x.split(self.micro_batch)
        return torch.cat([checkpoint(encoder, part, use_reentrant=False, preserve_rng_state=False) for part in parts])


def positions_as_samples(z: Tensor) -> Tensor:
    """(V, N, D, H, W) -> (V, N*H*W, D); embeddings of shape (V, N, D) pass unchanged."""
    return z.permute(0, 1, 3, 4, 2).flatten(1, 3) if z.ndim == 5 else z


def embeddings(model: JEPA, images: Tensor, batch_size: int = 128) -> Tensor:
    """`z` (N, D) of images (N, C, H, W), in evaluation mode; of every position, where z are maps.

    Computed in float32 throughout: a collapsed spectrum spans more orders of magnitude than bfloat16 resolves.
    """
    return in_batches(model, lambda x: model(x[None])[1][0], check_images(images), batch_size)


@torch.no_grad()
def settle_batchnorm(model: JEPA, images: Tensor, batches: int = 20, batch_size: int = 256) -> JEPA:
    """Give an untrained model BatchNorm statistics of images (N, C, H, W), in place; a fair baseline needs them."""
    model.train()
    for batch in check_images(images)[: batches * batch_size].split(batch_size):
        if len(batch) > 1:  # one image left over has no spread
            model(batch[None])
    return model.eval()


def build_model(config: TrainConfig, mean: list[float] | None = None, std: list[float] | None = None) -> JEPA:
    """The JEPA that `config` describes, with weights from its seed; mean and std normalise the images."""
    c = config
    with seeded(c.seed):
        encoder = build_encoder(c.model_type, c.dobs, c.henc, c.dstc, c.stride, c.patch_size, mean, std)
        projector = build_projector(encoder.features, c.projector)
        predictor = build_predictor(c.predictor, embedding_size(encoder, projector), c.hpre)
    return JEPA(encoder, projector, predictor, dense=c.predictor == "conv", micro_batch=c.micro_batch)


def embedding_size(encoder: Encoder, projector: nn.Module) -> int:
    """D: the width of the projector's last layer, or of the features where it has none."""
    widths = [layer.out_features for layer in projector.modules() if isinstance(layer, nn.Linear)]
    return widths[-1] if widths else encoder.features


def count_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
