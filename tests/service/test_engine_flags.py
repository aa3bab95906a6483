"""Flags become a Config, those of the engine above all, or are refused with the reason."""

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from engines.open import RUNTIMES, GpuOptions
from service.config import Config
from service.flags import config_from_flags, takes_server_flags


def parsed(*arguments: str, **environment: str) -> Config | str:
    """The configuration, or what the user reads."""
    made: list[Config] = []

    @click.command()
    @takes_server_flags
    def run(**flags: Any) -> None:
        made.append(config_from_flags(flags))

    result = CliRunner().invoke(run, ["--bundle", "b=nowhere", *arguments], env=environment)
    if result.exit_code:
        assert result.exit_code == 2
        return result.output
    return made[0]


def test_without_flags_the_cpu_runs_it_and_nothing_is_fallen_back_to() -> None:
    config = parsed()
    assert isinstance(config, Config)
    assert (config.runtime, config.fallbacks, config.precision) == ("onnxruntime", (), None)
    assert config.gpu == GpuOptions() and not config.gpu.build


def test_every_flag_reaches_its_place_from_the_environment_too() -> None:
    config = parsed(
        "--engine", "tensorrt,onnxruntime-cuda,onnxruntime", "--precision", "fp32", "--gpu", "0,3",
        LABELMINT_SERVER_ENGINE_CACHE="/cache", LABELMINT_SERVER_BUILD_ENGINE="1",
        LABELMINT_SERVER_ENGINE_CONTEXTS="3", LABELMINT_SERVER_BUILDER_OPTIMIZATION_LEVEL="5",
    )  # fmt: skip
    assert isinstance(config, Config)
    assert config.runtime == "tensorrt"
    assert config.fallbacks == ("onnxruntime-cuda", "onnxruntime")
    assert config.precision == "float32"
    assert config.gpu == GpuOptions(
        (0, 3), 3, cache=Path("/cache"), build=True, builder_optimization_level=5
    )


@pytest.mark.parametrize("name", RUNTIMES)
def test_every_engine_may_be_asked_for(name: str) -> None:
    config = parsed("--engine", name)
    assert isinstance(config, Config) and config.runtime == name


@pytest.mark.parametrize(
    ("flag", "value", "words"),
    [
        ("--engine", "", "'' is not one of onnxruntime"),
        ("--engine", "tensorrt,", "'' is not one of"),
        ("--engine", "tensorrt, onnxruntime", "' onnxruntime' is not one of"),
        ("--engine", "tensorrt,tensorrt", "'tensorrt' is not one of"),
        ("--engine", "cuda", "'cuda' is not one of"),
        ("--precision", "float16", "'float16' is not one of"),
        ("--gpu", "0,0", "'0,0' is not a list of different numbers"),
        ("--gpu", "-1", "'-1' is not a list of different numbers"),
        ("--gpu", "", "'' is not a list of different numbers"),
        ("--engine-contexts", "0", "0 is not in the range"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error_naming_it(flag: str, value: str, words: str) -> None:
    found = parsed(flag, value)
    assert isinstance(found, str)
    assert words in " ".join(found.replace("│", " ").split())


@pytest.mark.parametrize("name", ["a b", "c/d", ".hidden", "ünï", "x" * 129])
def test_names_of_models_are_those_that_a_watched_folder_may_have(name: str) -> None:
    refused = parsed("--bundle", f"{name}=nowhere")
    assert isinstance(refused, str) and "is not a model name" in refused


@pytest.mark.parametrize("flag", ["--drain-delay", "--batch-delay", "--watch-interval"])
def test_no_number_of_the_server_may_be_nan(flag: str) -> None:
    refused = parsed(flag, "nan")
    assert isinstance(refused, str) and "nan is not a number" in refused


def test_a_collector_is_named_by_its_url() -> None:
    refused = parsed("--otlp-endpoint", "collector:4317")
    assert isinstance(refused, str) and "'collector:4317' is not http://HOST:PORT" in refused
