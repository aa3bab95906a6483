"""What weights are, in words."""

from checkpoints import generator_from_foreign
from checkpoints.foreign import PickledNetwork, TorchFile
from export.inspect_weights import lines_from_generator
from nets.config import GeneratorConfig
from nets.stylegan2 import channels_from_base
from tests.checkpoints.golden import golden


def test_a_generator_says_all_that_is_asked_of_it() -> None:
    of = golden("stylegan2_ada/golden_skip_32_clamp")
    network = PickledNetwork("Generator", of.about["kwargs"], of.weights)
    generator, card = generator_from_foreign(network, "g.pkl")
    text = "\n".join(lines_from_generator("g", generator.config, card))
    for words in (
        "stylegan2 (skip)",
        "32 px",
        "24, 24, 16, 8 from 4 px on",
        "8 layers",
        "8 rows of w+",
        "not conditional",
        "clamp        2",
        "styledconv+const, D = 144",
        "not stated",
    ):
        assert words in text


def test_drawn_noise_is_said() -> None:
    file = TorchFile(golden("stylegan1/golden_32").weights)
    generator, card = generator_from_foreign(file, "g.pt")
    text = "\n".join(lines_from_generator("g", generator.config, card))
    assert "drawn from seed 0" in text and "stylegan1 (" in text


def test_recipes_of_other_taps_are_not_offered() -> None:
    _, card = generator_from_foreign(TorchFile(golden("stylegan1/golden_32").weights), "g.pt")
    channels = channels_from_base(1024, 16384)
    for config, offered in (
        (GeneratorConfig(1024, channels, family="stylegan1"), True),
        (GeneratorConfig(1024, channels, family="stylegan2"), False),
    ):
        text = "\n".join(lines_from_generator("g", config, card))
        assert "D = 5088" in text and ("recipe       datasetgan-face-34" in text) is offered
