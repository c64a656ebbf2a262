"""The networks are the paper's: what goes in, what comes out, what is shared."""

from __future__ import annotations

import pytest
import torch
from LesionDecompLib.errors import LesionDecompError
from LesionDecompLib.models.networks import Critic, DecompositionNet, UNet


def test_a_slice_is_split_into_a_normal_version_and_a_lesion_part():
    network = DecompositionNet(channels=4, levels=3).eval()
    x = torch.rand(2, 1, 32, 48) * 2 - 1
    out = network(x)
    assert out.normal.shape == out.lesion.shape == x.shape
    assert out.normal.abs().max() < 1 and out.lesion.abs().max() < 1  # a tanh ends each
    torch.testing.assert_close(network.normal(x), out.normal)
    torch.testing.assert_close(network.gate(x), out.gate)


def test_a_gated_lesion_part_only_adds_grey_and_only_where_there_is_heat():
    network = DecompositionNet(channels=4, levels=3, gated=True).eval()
    out = network(torch.rand(2, 1, 32, 32) * 2 - 1)
    assert out.lesion.min() >= 0 and out.lesion.max() <= 2
    assert (out.lesion <= 2 * torch.sigmoid(out.gate) + 1e-6).all()


def test_the_paper_has_two_decoders_and_the_released_code_one():
    two, one = (DecompositionNet(channels=4, levels=3, shared=shared) for shared in (False, True))
    count = [sum(p.numel() for p in network.parameters()) for network in (two, one)]
    assert count[0] - count[1] == sum(p.numel() for p in two.lesion_trunk.parameters())
    x = torch.rand(1, 1, 32, 32) * 2 - 1
    torch.testing.assert_close(one.eval().gate(x), one(x).gate)


def test_a_stem_changes_the_work_not_the_size():
    network = DecompositionNet(channels=4, levels=3, gated=True, stem=2).eval()
    x = torch.rand(1, 1, 32, 48) * 2 - 1
    out = network(x)
    assert out.normal.shape == out.lesion.shape == out.gate.shape == x.shape
    torch.testing.assert_close(network.gate(x), out.gate)


def test_without_lesion_decoder_there_is_no_lesion_part():
    out = DecompositionNet(channels=4, levels=2, lesion_decoder=False).eval()(torch.rand(1, 1, 16, 16))
    assert not out.lesion.any()


def test_the_paper_s_size_is_that_of_a_five_level_unet_with_64_channels():
    network = DecompositionNet(norm="none")
    assert [block[0].out_channels for block in network.encoder.blocks] == [64, 128, 256, 512, 1024]


def test_the_critic_scores_each_slice_by_itself():
    critic = Critic(channels=4)
    slices = torch.rand(3, 1, 64, 48)
    torch.testing.assert_close(critic(slices)[1], critic(slices[1:2])[0])
    assert len(critic.convolutions) == 7
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in critic.modules())
    assert critic.score.in_features == 4 + 32 + 32  # layers 1, 4 and 7 pooled


def test_the_lung_network_gives_one_logit_for_each_class_and_pixel():
    assert UNet(out_channels=3, channels=4, levels=3)(torch.rand(2, 1, 32, 64)).shape == (2, 3, 32, 64)


def test_an_unknown_norm_is_refused():
    with pytest.raises(LesionDecompError, match="layer"):
        UNet(channels=4, norm="layer")
