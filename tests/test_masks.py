import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from jepa_utils import masked, spectra
from jepa_utils.data import digits
from jepa_utils.masked import MaskedConfig, Predictor, fit_masked, grid_positions, new_masked
from jepa_utils.masks import distances, draw_block, sample_blocks
from jepa_utils.runtime import InputError, generator

TINY = {"width": 32, "depth": 2, "heads": 2, "hpre": 32, "predictor_depth": 1, "batch_size": 64}


@pytest.fixture(scope="module")
def images():
    return digits(600, 200)


@pytest.fixture(scope="module")
def layout():
    context, blocks = sample_blocks(8, generator(3))
    return context, torch.cat(blocks).unique()


def box(inside):
    """Height and width of the True part; fails unless it is one full rectangle."""
    rows, columns = inside.any(dim=1).nonzero()[:, 0], inside.any(dim=0).nonzero()[:, 0]
    height, width = int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1
    assert inside.sum() == height * width
    return height, width


@settings(deadline=None, max_examples=60)
@given(side=st.integers(2, 16), seed=st.integers(0, 10**6), low=st.floats(0.02, 0.9), wide=st.floats(0, 0.5),
       flat=st.floats(0.3, 1.5), more=st.floats(1, 2))
def test_a_block_is_a_rectangle_of_the_size_and_aspect_asked_for(side, seed, low, wide, flat, more):
    scale, aspect = (low, min(1.0, low + wide)), (flat, flat * more)
    inside = draw_block(side, scale, aspect, generator(seed))
    assert inside.shape == (side, side)
    height, width = box(inside)  # each is within half a patch of what an unrounded block could have, or at the edge
    for length, shape in ((height, aspect), (width, (1 / aspect[1], 1 / aspect[0]))):
        least, most = (side * (share * ratio) ** 0.5 for share, ratio in zip(scale, shape, strict=True))
        assert min(side, max(1, least)) - 0.51 <= length <= min(side, max(1, most)) + 0.51


@settings(deadline=None, max_examples=60)
@given(side=st.integers(4, 16), seed=st.integers(0, 10**6), blocks=st.integers(1, 5))
def test_a_layout_never_shows_a_target_and_never_is_empty(side, seed, blocks):
    context, targets = sample_blocks(side, generator(seed), blocks, least=2)
    assert len(context) >= 2
    assert len(targets) == blocks
    assert all(len(block) for block in targets)
    everything = torch.cat([context, *targets])
    assert everything.min() >= 0
    assert everything.max() < side * side
    assert not set(context.tolist()) & set(torch.cat(targets).tolist())
    assert context.tolist() == sorted(set(context.tolist()))


def test_the_papers_sizes_on_average():
    layouts = [sample_blocks(14, g) for g in [generator(0)] for _ in range(300)]
    share = torch.tensor([len(block) for _, blocks in layouts for block in blocks]).float().mean() / 196
    assert 0.165 < share < 0.185  # 15 to 20 %


def test_a_layout_is_decided_by_its_generator():
    first, again, other = (sample_blocks(8, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first[0], again[0])
    assert all(map(torch.equal, first[1], again[1]))
    assert not all(a.tolist() == b.tolist() for a, b in zip(first[1], other[1], strict=True))


def test_distances_are_counted_from_the_nearest_visible_patch():
    far = distances(4, torch.tensor([0, 3]))  # two corners of the first row
    assert far.view(4, 4)[0].tolist() == [0, 1, 1, 0]
    assert far.view(4, 4)[3, 0] == 3
    torch.testing.assert_close(far.view(4, 4)[1, 1], torch.tensor(2**0.5))


@pytest.mark.parametrize(("call", "name"), [
    (lambda: draw_block(8, (0.5, 0.2), (1, 1), generator(0)), "scale"),
    (lambda: draw_block(8, (0.5, 1.2), (1, 1), generator(0)), "scale"),
    (lambda: draw_block(8, 0.5, (1, 1), generator(0)), "scale"),
    (lambda: draw_block(8, (0.5, 0.6), (0, 1), generator(0)), "aspect"),
    (lambda: draw_block(0, (0.5, 0.6), (1, 1), generator(0)), "side"),
    (lambda: sample_blocks(8, generator(0), 0), "blocks"),
    (lambda: sample_blocks(8, generator(0), 20, target=(1, 1)), "target"),
    (lambda: MaskedConfig(hold="string"), "hold"),
    (lambda: MaskedConfig(over="images"), "over"),
    (lambda: MaskedConfig(width=98), "width"),
    (lambda: MaskedConfig(momentum=1.5), "momentum"),
    (lambda: MaskedConfig(patch_size=5), "patch_size"),
    *((lambda name=name, value=value: MaskedConfig(**{name: value}), name) for name, value in (
        ("lr", -1), ("lr", 0), ("lr", "fast"), ("lmbd", -1), ("weight_decay", float("nan")), ("slices", 0),
        ("seed", -1.5), ("seed", -1), ("optimizer", "sgd"), ("optimizer", "lars"), ("projector", "abc"),
        ("projector", None), ("depth", 0), ("batch_size", 1.5))),
    (lambda: MaskedConfig(hold="sigreg", projector=""), "projector"),
    (lambda: fit_masked(MaskedConfig(**TINY), digits(600, 200).limited(50), 2), "batch_size"),
    (lambda: fit_masked(MaskedConfig(**TINY), digits(600, 200), 0), "steps"),
])
def test_what_cannot_be_used_is_refused_by_name_in_one_line(call, name):
    with pytest.raises(InputError, match=f"^{name}: ") as error:
        call()
    assert "\n" not in str(error.value)


def test_positions_tell_all_places_apart_and_neighbours_alike():
    table = grid_positions(8, 64)
    assert table.shape == (64, 64)
    apart = torch.cdist(table, table) + 10 * torch.eye(64)
    assert apart.min() > 0.5
    assert apart[27, 28] < apart[27, 30]
    assert apart[27, 35] < apart[27, 51]


def test_the_context_cannot_see_what_is_hidden(images, layout):
    context, target = layout
    model = new_masked(MaskedConfig(**TINY), images)
    x, hidden = images.train_images[:4] / 255, torch.ones(64, dtype=torch.bool)
    hidden[context] = False
    pixels = hidden.view(8, 8).repeat_interleave(4, 0).repeat_interleave(4, 1)
    changed = torch.where(pixels, 1 - x, x)
    torch.testing.assert_close(model.encoder.tokens(x, context), model.encoder.tokens(changed, context), rtol=0, atol=0)
    guesses = [model.guesses(each, context, target) for each in (x, changed)]
    torch.testing.assert_close(*guesses, rtol=0, atol=0)
    assert not torch.allclose(model.targets(x), model.targets(changed))


def test_the_guess_depends_on_the_place_asked_and_on_the_context(layout):
    torch.manual_seed(0)
    predictor, (context, target) = Predictor(12, 5, 8, 16, 1, 2), layout
    tokens = torch.randn(3, len(context), 12)
    guess = predictor(tokens, context, target)
    assert guess.shape == (3, len(target), 5)
    assert guess.std(dim=1).min() > 1e-3  # from place to place
    torch.testing.assert_close(predictor(tokens, context, target.flip(0)), guess.flip(1))  # only the place counts
    assert not torch.allclose(predictor(tokens.flip(0), context, target), guess)
    moved = predictor(tokens, (context + 1) % 64, target)
    assert not torch.allclose(moved, guess)


def test_features_are_the_mean_of_all_tokens(images):
    encoder = new_masked(MaskedConfig(**TINY), images).encoder
    x = images.test_images[:3]
    torch.testing.assert_close(encoder(x), encoder.tokens(x).mean(dim=1))
    torch.testing.assert_close(encoder.tokens(x, torch.arange(64)), encoder.tokens(x))


def test_targets_are_normalised_as_torch_does_it_and_over_tokens_nothing_common_is_left():
    tokens = 3 + torch.randn(4, 64, 6, generator=generator(0)) * torch.arange(1, 7) + 5 * torch.randn(4, 1, 6)
    torch.testing.assert_close(masked.normalized(tokens, "features"), F.layer_norm(tokens, (6,)))
    over_tokens = F.instance_norm(tokens.transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(masked.normalized(tokens, "tokens"), over_tokens)
    moved = tokens + torch.randn(4, 1, 6)  # what all tokens of an image share
    torch.testing.assert_close(masked.normalized(moved, "tokens"), over_tokens, rtol=1e-4, atol=1e-4)


def test_the_teachers_targets_carry_no_gradient_and_the_others_do(images):
    x = images.test_images[:3]
    for hold, carried in {"teacher": False, "sigreg": True, "nothing": True}.items():
        model = new_masked(MaskedConfig(hold=hold, **TINY), images)
        z = model.targets(x)
        assert z.requires_grad == carried
        assert z.shape == (3, 64, model.predictor.answer.out_features)
        assert (model.reader is model.encoder) == (hold != "teacher")


def test_a_step_moves_the_student_by_gradient_and_the_teacher_by_momentum(images, layout):
    model = new_masked(MaskedConfig(**TINY), images)
    before = model.encoder.body.patches.weight.detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    terms = masked.masked_step(model, optimizer, images.train_images[:8], *layout, momentum=0.75)
    assert list(terms) == ["prediction"]
    own, student = model.teacher.body.patches.weight, model.encoder.body.patches.weight
    assert not torch.equal(student, before)
    torch.testing.assert_close(own, 0.75 * before + 0.25 * student)
    assert all(p.grad is None for p in model.teacher.parameters())


def test_training_repeats_itself_and_looks_when_asked(images):
    seen = []
    runs = [fit_masked(MaskedConfig(**TINY), images, 5, lambda step, model: seen.append(step), 2, progress=False)
            for _ in range(2)]
    assert seen == [0, 2, 5] * 2
    assert runs[0][1]["prediction"] == runs[1][1]["prediction"]
    assert min(runs[0][1]["seconds"]) > 0
    assert len(runs[0][1]["prediction"]) == 5


def test_without_anything_to_hold_them_the_targets_collapse_and_are_cured(images):
    """Each in a few seconds: the spread of the targets over images, at the same place."""
    def spread(**changes):
        model, _ = fit_masked(MaskedConfig(**TINY | {"lr": 1e-2} | changes), images, 50, progress=False)
        with torch.no_grad():
            z = model.targets(images.test_images)
        return z.std(dim=0).mean().item(), spectra.collapse_report(z[:, 0], None).relative_std

    (dead, varies), (held, _) = spread(hold="nothing", over="features"), spread(hold="teacher", over="features")
    assert dead < 0.25 * held
    assert varies < 0.1
    (dead, _), (held, _) = spread(hold="nothing", over="tokens"), spread(hold="teacher", over="tokens")
    assert dead < 0.25 * held
    (fallen, _), (open_, _) = spread(hold="sigreg", lmbd=0.0), spread(hold="sigreg")
    assert fallen < 0.2 * open_
    assert open_ > 0.5
