"""Of a repository each weight is fetched once, in a form that runs no code."""

from __future__ import annotations

import pytest

from gpustack.artifacts.repository import NO_EXTRAS, ChosenFiles, FileExtras, chosen_files, engine_files
from gpustack.errors import BadRequest, NotFound

FIELD = "huggingface_filename"
SHARDS = [
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
]
NEEDED = [
    "config.json",
    "generation_config.json",
    "tokenizer.model",
    "tokenizer.json",
    "tokenizer.model.v3",
    "tokenizer.mm.model.v7m1",
    "chat_template.jinja",
    "merges.txt",
]


def chosen(names: list[str], pattern: str | None = None, extras: FileExtras = NO_EXTRAS) -> ChosenFiles:
    return chosen_files(names, pattern, projector="*mmproj*", extras=extras, place="me/m", field=FIELD)


@pytest.mark.parametrize(
    "beside",
    [
        [
            "pytorch_model.bin",
            "pytorch_model.bin.index.json",
            "tf_model.h5",
            "flax_model.msgpack",
            "model.onnx",
        ],
        ["onnx/model.onnx", "openvino/openvino_model.xml", "m-Q4_K_M.gguf", "model.ckpt", "rust_model.ot"],
        [
            "README.md",
            "LICENSE",
            "LICENSE.txt",
            "logo.png",
            ".gitattributes",
            ".cache/x.json",
            "figures/a.json.png",
        ],
        ["modeling_m.py", "setup.sh", "libx.so", "training_args.bin", "optimizer.pt", "runs/a/events.out.1"],
        ["original/model-00001-of-00001.safetensors", "original/params.json", "metal/model.bin"],
        ["consolidated.safetensors"],
        ["consolidated-00001-of-00002.safetensors", "consolidated.safetensors.index.json"],
        ["checkpoint-500/model.safetensors", "checkpoint-500/config.json"],
        ["model.fp16-00001-of-00002.safetensors", "model.fp16-00002-of-00002.safetensors"],
    ],
)
def test_what_lies_beside_safetensors_is_left_out(beside: list[str]) -> None:
    assert chosen([*SHARDS, *NEEDED, *beside]).names == tuple(sorted([*SHARDS, *NEEDED]))


def test_code_and_pickles_come_when_they_are_asked_for() -> None:
    names = [*SHARDS, "config.json", "modeling_m.py", "pytorch_model.bin", "run.sh"]
    asked = chosen(names, extras=FileExtras(code=True)).names
    assert "modeling_m.py" in asked
    assert "pytorch_model.bin" not in asked  # the same weights again
    assert "run.sh" not in asked


def test_a_repository_of_pickles_is_refused_with_the_ways_round_it() -> None:
    names = ["config.json", "pytorch_model-00001-of-00001.bin", "README.md"]
    with pytest.raises(BadRequest, match=r"as pickles only .* huggingface_filename, .* --trust-remote-code"):
        chosen(names)
    assert "pytorch_model-00001-of-00001.bin" in chosen(names, extras=FileExtras(code=True)).names
    assert chosen(names, "*.bin").names == ("pytorch_model-00001-of-00001.bin",)


def test_weights_of_other_engines_come_where_there_are_no_safetensors() -> None:
    whisper = [
        "config.json",
        "model.bin",
        "tokenizer.json",
        "vocabulary.txt",
    ]  # of CTranslate2, which is no pickle
    assert chosen([*whisper, "README.md"]).names == tuple(sorted(whisper))
    voice = ["en_US-amy-low.onnx", "en_US-amy-low.onnx.json", "voices.npz"]
    assert chosen(voice).names == tuple(sorted(voice))


def test_the_form_of_the_maker_comes_when_it_is_asked_for_or_alone() -> None:
    both = [*SHARDS, "consolidated.safetensors", "params.json", "tekken.json"]
    asked = chosen(both, extras=FileExtras(consolidated=True)).names
    assert "consolidated.safetensors" in asked
    assert "model-00001-of-00002.safetensors" not in asked
    alone = ["consolidated.safetensors", "params.json", "tekken.json"]
    assert chosen(alone).names == tuple(sorted(alone))


def test_a_pipeline_keeps_its_folders_each_weight_once() -> None:
    names = [
        "model_index.json",
        "sd-v1-4.ckpt",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/diffusion_pytorch_model.bin",
        "tokenizer/merges.txt",
        "vae/diffusion_pytorch_model.fp16.safetensors",
    ]
    assert chosen(names).names == (
        "model_index.json",
        "tokenizer/merges.txt",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.fp16.safetensors",  # there is no other
    )


def test_an_embedder_keeps_its_modules() -> None:
    names = ["model.safetensors", "modules.json", "1_Pooling/config.json", "2_Dense/model.safetensors"]
    assert chosen(names).names == tuple(sorted(names))


def test_a_configuration_without_weights_is_enough() -> None:
    assert chosen(["config.json", "README.md"]).names == ("config.json",)
    with pytest.raises(NotFound, match="no files that an engine could use"):
        chosen(["README.md"])


def test_a_path_is_used_as_it_is() -> None:
    names = ["config.json", "pytorch_model.bin", "modeling.py"]
    assert engine_files(names, FileExtras(code=True)) == sorted(names)
