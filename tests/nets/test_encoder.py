"""The encoder changes given latents, for each image separately and at any extent."""

import pytest
import torch

from nets.encoder import Encoder, EncoderConfig, encoder_channels


def encoder(height: int = 24, width: int = 32) -> Encoder:
    torch.manual_seed(0)
    config = EncoderConfig(height, width, num_ws=6, w_dim=8, channels=(16, 32, 32), hidden=16)
    return Encoder(config).eval()


@pytest.mark.parametrize(("height", "width"), [(24, 32), (4, 4), (17, 5), (1, 9)])
def test_any_extent_gives_latents(height: int, width: int) -> None:
    images = torch.rand(2, 3, height, width)
    network = encoder(height, width)
    assert network(images, images, network.mean_ws(2)).shape == (2, 6, 8)


def test_a_step_adds_to_the_latents_in_units_of_their_spread() -> None:
    network, images = encoder(), torch.rand(2, 3, 24, 32)
    network.w_std.fill_(3.0)
    ws = torch.randn(2, 6, 8)
    change = network(images, images, torch.zeros(2, 6, 8))
    torch.testing.assert_close(network(images, images, ws), ws + change)
    network.w_std.fill_(6.0)
    torch.testing.assert_close(network(images, images, torch.zeros(2, 6, 8)), 2 * change)


def test_the_first_latents_are_the_mean() -> None:
    network = encoder()
    network.w_avg.copy_(torch.arange(8.0))
    assert torch.equal(network.mean_ws(3), torch.arange(8.0).expand(3, 6, 8))


def test_what_is_shown_so_far_is_seen() -> None:
    network, (image, shown) = encoder(), torch.rand(2, 1, 3, 24, 32)
    ws = network.mean_ws(1)
    assert not torch.equal(network(image, image, ws), network(image, shown, ws))


def test_images_of_a_batch_do_not_see_each_other() -> None:
    network, images = encoder(), torch.rand(3, 3, 24, 32)
    together = network.train()(images, images, network.mean_ws(3))
    alone = network(images[1:2], images[1:2], network.mean_ws(1))
    torch.testing.assert_close(together[1:2], alone)


def test_halvings_end_at_four_positions() -> None:
    assert encoder_channels(64) == (32, 64, 128, 256, 256)
    assert encoder_channels(256) == (32, 64, 128, 256, 256, 256, 256)
    assert encoder_channels(4) == (32, 32)


def test_other_extents_and_widths_are_refused_with_the_numbers() -> None:
    with pytest.raises(ValueError, match=r"\[3, 24, 31\]; it must be \[3, 24, 32\]"):
        encoder()(torch.zeros(1, 3, 24, 31), torch.zeros(1, 3, 24, 31), torch.zeros(1, 6, 8))
    with pytest.raises(ValueError, match=r"channels are \[16, 20\]"):
        EncoderConfig(8, 8, 6, 8, channels=(16, 20))
