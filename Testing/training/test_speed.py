"""What training computes fast is what the plain formulation gives."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from LesionDecompLib.models.networks import Critic, UpConvolution
from LesionDecompLib.segmentation.smoothing import blur_inside
from LesionDecompLib.training import losses
from LesionDecompLib.training.augmentation import HEALTHY_GRAY, augment
from LesionDecompLib.training.config import PRESETS, Augmentation, load_config
from LesionDecompLib.training.data.ahead import made_ahead
from LesionDecompLib.training.data.slices import SliceSet
from LesionDecompLib.training.draws import SliceDraws
from LesionDecompLib.training.lesion_task import LesionTask
from LesionDecompLib.training.loop import train
from LesionDecompLib.training.painted_lesions import COMPACT, SPREAD, lesion_look, paint_lesions
from LesionDecompLib.training.smooth_fields import interpolated
from tiny_training import TINY, slice_image, write_training_set
from torch.nn import functional


@pytest.fixture(scope="module")
def slices() -> torch.Tensor:
    rng = np.random.default_rng(5)
    images = np.stack([slice_image(rng, number % 2 == 0) for number in range(6)])
    return torch.from_numpy(images).float().unsqueeze(1) / 127.5 - 1


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_the_up_convolution_is_a_transposed_convolution(precision):
    torch.manual_seed(0)
    fast = UpConvolution(6, 4).to(precision)
    plain = torch.nn.ConvTranspose2d(6, 4, 2, stride=2).to(precision)
    plain.load_state_dict(fast.state_dict())
    x = torch.randn(3, 6, 5, 7).to(precision)
    gradients = []
    for layer in (fast, plain):
        given = x.clone().requires_grad_(True)
        out = layer(given)
        assert out.shape == (3, 4, 10, 14)
        (out.float() * torch.linspace(-1, 1, out.numel()).view(out.shape)).sum().backward()
        gradients.append([out, given.grad, layer.weight.grad, layer.bias.grad])
    tolerance = 1e-5 if precision == torch.float32 else 0.02
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)
    with torch.no_grad():
        assert torch.equal(fast.eval()(x), plain.eval()(x))


def test_the_gradient_penalty_has_the_gradient_of_its_definition():
    torch.manual_seed(0)
    critic = Critic(3)
    real, fake, mix = torch.rand(4, 1, 32, 32), torch.rand(4, 1, 32, 32), torch.rand(4, 1, 1, 1)
    with torch.no_grad():  # so steep that the penalty pulls
        critic.score.weight *= 200
    between = (mix * real + (1 - mix) * fake).requires_grad_(True)
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    defined = (gradient.flatten(1).norm(dim=1) - 1).pow(2).mean()
    fast = losses.gradient_penalty(critic, real, fake, mix)
    assert float(fast.detach()) == pytest.approx(float(defined.detach()), rel=1e-4)
    # Biases do not matter to it: their gradient is nothing, or none.
    expected = torch.autograd.grad(defined, list(critic.parameters()), allow_unused=True)
    found = torch.autograd.grad(fast, list(critic.parameters()), allow_unused=True)
    for (name, parameter), a, b in zip(critic.named_parameters(), expected, found, strict=True):
        a, b = (torch.zeros_like(parameter) if value is None else value for value in (a, b))
        torch.testing.assert_close(b, a, rtol=1e-3, atol=1e-5 * float(a.abs().max()) + 1e-7, msg=name)
        assert a.any() == name.endswith("weight")


@pytest.mark.parametrize(("mode", "corners"), [("bilinear", False), ("bicubic", True)])
def test_fields_are_interpolated_as_torch_does(mode, corners):
    coarse = torch.randn(2, 3, 7, 9)
    plain = functional.interpolate(coarse, (20, 33), mode=mode, align_corners=corners)
    torch.testing.assert_close(interpolated(coarse, (20, 33), mode, corners), plain, atol=1e-5, rtol=0)


def plain_augmentation(x: torch.Tensor, beside: torch.Tensor, ranges: Augmentation, draws: SliceDraws):
    """One operation of torch for each step, with the same draws."""
    n, _, height, width = x.shape
    angle = torch.deg2rad(draws.uniform(-ranges.rotation, ranges.rotation, ()))
    size = 1 + draws.uniform(-ranges.scale, ranges.scale, ())
    sign = torch.where(draws.uniform(0, 1, ()) < ranges.flip, -1.0, 1.0)
    cos, sin, theta = torch.cos(angle) / size, torch.sin(angle) / size, torch.zeros(n, 2, 3)
    theta[:, 0, 0], theta[:, 0, 1] = cos * sign, -sin * height / width
    theta[:, 1, 0], theta[:, 1, 1] = sin * width / height * sign, cos
    theta[:, :, 2] = draws.uniform(-ranges.shift, ranges.shift, (2,)) * torch.tensor([2 / width, 2 / height])
    grid = functional.affine_grid(theta, list(x.shape), align_corners=False)
    lung = (x > -1).float()
    gray, cover, beside = functional.grid_sample(
        torch.cat([(x + 1) * lung, lung, beside], 1), grid, align_corners=False
    ).split(1, dim=1)
    lung = cover > 0.5
    moved = torch.where(lung, gray / cover.clamp_min(0.5) - 1, -1.0)
    out = HEALTHY_GRAY + (moved - HEALTHY_GRAY) * (1 + draws.normal(ranges.gain)) + draws.normal(ranges.offset)
    behind = (torch.arange(height) - (height - 1) / 2).view(1, 1, -1, 1) / 100
    out = out + draws.normal(ranges.gravity).abs() * behind
    one, two = (functional.max_pool2d((~lung).float(), k, stride=1, padding=k // 2) > 0 for k in (3, 5))
    coarse = draws.uniform(0, 2, (1, 6, 8)) - draws.uniform(0, 1)
    where = functional.interpolate(coarse, (height, width), mode="bilinear").clamp(0, 1)
    chosen, inner = (draws.uniform(0, 1) < ranges.rim).float(), (draws.uniform(0, 1) < 0.4).float() * 0.5
    rim = torch.maximum(out, draws.uniform(0.1, 1.0))
    out = torch.lerp(out, rim, chosen * where * torch.where(one, 1.0, torch.where(two, inner, 0.0)) * lung)
    out = torch.lerp(out, blur_inside(out, lung.float(), ranges.blur), draws.uniform(0, 1))
    noise = draws.uniform(0, ranges.noise)
    out = out + draws.noise(tuple(out.shape[1:])) * noise
    return torch.where(lung, out.clamp(-1 + 1 / 127.5, 1.0), -1.0), beside


def test_augmentation_is_what_its_plain_formulation_gives(slices):
    x = slices.repeat(4, 1, 1, 1)
    beside, seeds = (x > 0).float(), range(len(x))
    found, map_found = augment(x, Augmentation(), SliceDraws(seeds), beside)
    expected, map_expected = plain_augmentation(x, beside, Augmentation(), SliceDraws(seeds))
    # A pixel may change sides where its coverage rounds to one half.
    assert ((found > -1) != (expected > -1)).float().mean() < 1e-4
    both = (found > -1) & (expected > -1)
    assert (found - expected)[both].abs().max() < 0.005  # blur leaves out weights below a thousandth
    torch.testing.assert_close(map_found, map_expected, atol=1e-3, rtol=0)
    assert (found - x)[both].abs().mean() > 0.05


def test_slices_on_another_device_stay_there(slices):
    """The meta device computes nothing, and refuses what lies elsewhere as a GPU would."""
    x = slices.to("meta")
    moved, beside = augment(x, Augmentation(), SliceDraws(range(len(x))), x.clone())
    assert moved.is_meta and beside.is_meta and moved.shape == x.shape


def plain_paint(x: torch.Tensor, draws: SliceDraws) -> tuple[torch.Tensor, torch.Tensor]:
    """Patch after patch, each drawn on the whole slice, with the same draws."""
    coarse = functional.avg_pool2d(x, 2)
    size = tuple(coarse.shape[2:])
    lungs = (coarse > -1).float()
    shares = functional.avg_pool2d(lungs, 9, stride=1, padding=4) * lungs
    layers = torch.zeros(len(x), 3, *size)
    scale = min(size) / 144

    def field(rng, length):
        n = [max(2, int(np.ceil(side / length)) + 1) for side in size]
        noise = torch.from_numpy(rng.standard_normal((1, 1, *n), dtype=np.float32))
        return functional.interpolate(noise, size=size, mode="bicubic", align_corners=True)[0, 0]

    for (opacity, gray, extent), image, lung, share, rng in zip(
        layers, coarse[:, 0], lungs[:, 0], shares[:, 0], draws.generators, strict=True
    ):
        for _ in range(rng.integers(1, 7)):
            candidates = torch.nonzero((lung > 0) & ((share < 0.7) if rng.random() < 0.65 else (share >= 0)))
            row, column = candidates[rng.integers(len(candidates))].tolist()
            rows, columns = torch.arange(size[0]).view(-1, 1) - row, torch.arange(size[1]).view(1, -1) - column
            look = lesion_look(rng)
            angle = rng.uniform(0, np.pi)
            sizes, roundness, raggedness, blur = COMPACT if look.compact else SPREAD
            long = np.exp(rng.uniform(*np.log(sizes))) * scale
            short = max(2 * scale, long * rng.uniform(roundness, 1.0))
            u = (np.cos(angle) * columns + np.sin(angle) * rows) / long
            v = (np.cos(angle) * rows - np.sin(angle) * columns) / short
            ragged = field(rng, max(1.5, short * rng.uniform(0.15, 0.6))) * rng.uniform(*raggedness)
            edge = max(rng.uniform(0.5, blur) * scale / short, 0.02)
            patch = torch.sigmoid((1 - torch.sqrt(u * u + v * v) + ragged) / edge * 2)
            texture, density = look.delta + look.rough * field(rng, rng.uniform(1.0, 2.5)), look.density
            if look.bronchi or look.net:
                lines = torch.exp(-field(rng, rng.uniform(3.0, 6.0)).abs() * rng.uniform(4.0, 8.0))
                texture = texture + look.net * lines
                density = torch.lerp(
                    torch.tensor(density), torch.tensor(1.0 if look.net else 0.0), lines * (look.bronchi or 1)
                )
            level = image[lung > 0].median() + texture
            on_top = patch * density > opacity
            gray.copy_(torch.where(on_top, level.clamp(max=0.99), gray))
            opacity.copy_(torch.maximum(opacity, patch * density))
            extent.copy_(torch.maximum(extent, patch))
    opacity, gray, extent = functional.interpolate(layers, x.shape[2:], mode="bilinear").split(1, dim=1)
    painted = x + opacity * (torch.maximum(gray, x) - x)
    return torch.where(x > -1, painted.clamp(-1 + 1 / 127.5, 1), -1.0), torch.where(x > -1, extent, 0.0)


@pytest.mark.slow
def test_painted_lesions_are_what_painting_one_after_the_other_gives(slices):
    for start in (0, 6):
        seeds = range(start, start + 6)
        for found, expected in zip(
            paint_lesions(slices, SliceDraws(seeds)), plain_paint(slices, SliceDraws(seeds)), strict=True
        ):
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_a_slice_without_lung_is_left_alone():
    empty = torch.full((2, 1, 64, 64), -1.0)
    moved, _ = augment(empty, Augmentation(), SliceDraws(range(2)))
    painted, extent = paint_lesions(empty, SliceDraws(range(2)))
    assert torch.equal(moved, empty) and torch.equal(painted, empty) and not extent.any()


@pytest.mark.slow
def test_slices_drawn_ahead_train_to_the_same_weights(tmp_path):
    data = SliceSet.load(write_training_set(tmp_path / "set"), "train")
    config = load_config(PRESETS["default"], None, TINY)
    trained = []
    for ahead in (True, False):
        task = LesionTask(config, data, torch.device("cpu"))
        network = train(task, tmp_path / str(ahead), steps=config.steps, seed=3, ahead=ahead)
        trained.append(network.state_dict())
    assert all(torch.equal(value, trained[1][key]) for key, value in trained[0].items())


def test_work_ahead_keeps_its_order_and_ends_with_its_user():
    def make(number: int) -> int:
        if number == 5:
            raise ValueError("the sixth")
        return number

    made, threads = [], torch.get_num_threads()
    with pytest.raises(ValueError, match="the sixth"):
        for number in made_ahead(make, range(9)):
            made.append(number)
    assert made == [0, 1, 2, 3, 4]
    some = made_ahead(make, range(3))
    assert next(some) == 0
    some.close()
    assert not any(thread.name.startswith("batches") for thread in threading.enumerate())
    assert torch.get_num_threads() == threads
    assert list(made_ahead(make, range(0))) == []
