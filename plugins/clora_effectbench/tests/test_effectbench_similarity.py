"""The metric `similarity` with small models of transformers' own classes, against the same classes called by hand."""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest
import torch
from clora_effectbench.similarity import SimilarityMetric
from clora_effectbench.to_teacher import ToTeacherMetric

from clora.api import CloraError, EffectPictures, Evaluation, Measured, ModelPlace

TINY = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION = TINY | {"image_size": 16, "patch_size": 8}
MEAN, SD = (0.48, 0.45, 0.4), (0.27, 0.26, 0.28)


@pytest.fixture(scope="module")
def encoders(tmp_path_factory) -> Path:
    """Folders clip, dinov2 and vit with random weights; vit lacks its pooler, as published DINO weights do."""
    from transformers import CLIPConfig, CLIPModel, Dinov2Config, Dinov2Model, ViTConfig, ViTModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    torch.manual_seed(0)
    text = TINY | {"vocab_size": 20, "max_position_embeddings": 8, "bos_token_id": 1, "eos_token_id": 2}
    dino = {key: value for key, value in VISION.items() if key != "intermediate_size"}
    models = {
        "clip": CLIPModel(CLIPConfig(text_config=text, vision_config=VISION, projection_dim=12)),
        "dinov2": Dinov2Model(Dinov2Config(**dino)),
        "vit": ViTModel(ViTConfig(**VISION), add_pooling_layer=False),
    }
    size = {"size": {"height": 16, "width": 16}, "do_center_crop": False}
    reader = CLIPImageProcessorPil(**size, image_mean=MEAN, image_std=SD, do_rescale=True, do_convert_rgb=True)
    folder = tmp_path_factory.mktemp("encoders")
    for name, model in models.items():
        # Random layers of this size hardly look at the picture, so their weights are made larger.
        for parameter in model.parameters():
            parameter.data = torch.randn(parameter.shape) * 0.6
        model.save_pretrained(folder / name)
        reader.save_pretrained(folder / name)
    return folder


def metric(model: str | Path, **how) -> SimilarityMetric:
    return SimilarityMetric(ModelPlace(str(model)), **how)


def random(seed: int, count: int = 5) -> torch.Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def evaluation(teacher: bool = True) -> Evaluation:
    source = random(0)
    names = tuple("abcde")
    return Evaluation(
        [
            EffectPictures("one", names, source, random(1), random(2) if teacher else None, {}),
            EffectPictures("two", names, source, random(3), random(4), {}),
        ],
        None,
    )


def pixels(pictures: torch.Tensor) -> torch.Tensor:
    """What the encoders read, without transformers: bytes, scaled by mean and standard deviation."""
    bytes_ = numpy.clip(numpy.round((pictures.double().numpy() + 1) * 127.5), 0, 255) / 255
    mean, sd = numpy.array(MEAN)[:, None, None], numpy.array(SD)[:, None, None]
    return torch.tensor((bytes_ - mean) / sd)


def by_hand(folder: Path, pictures: torch.Tensor) -> torch.Tensor:
    """The encoders' vectors in float64, from the parts of each model rather than from its own shortcut."""
    from transformers import CLIPModel, Dinov2Model, ViTModel

    with torch.no_grad():
        if folder.name == "clip":
            clip = CLIPModel.from_pretrained(folder).double().eval()
            seen = clip.vision_model(pixels(pictures)).last_hidden_state[:, 0]
            return clip.visual_projection(clip.vision_model.post_layernorm(seen))
        cls, how = (Dinov2Model, {}) if folder.name == "dinov2" else (ViTModel, {"add_pooling_layer": False})
        return cls.from_pretrained(folder, **how).double().eval()(pixels(pictures)).last_hidden_state[:, 0]


def cosines(a: torch.Tensor, b: torch.Tensor) -> list[float]:
    return [
        sum(x * y for x, y in zip(u, v, strict=True)) / (sum(x * x for x in u) * sum(y * y for y in v)) ** 0.5
        for u, v in zip(a.tolist(), b.tolist(), strict=True)
    ]


def measure(folder: Path, **how) -> Measured:
    return metric(folder, **how).measure(evaluation())


@pytest.mark.parametrize("name", ["clip", "dinov2", "vit"])
def test_agrees_with_the_same_model_called_by_hand(encoders: Path, name: str):
    found = measure(encoders / name, batch_size=2)
    every: dict[str, list[float]] = {}
    for part in evaluation().effects:
        source, student, teacher = (by_hand(encoders / name, p) for p in (part.source, part.student, part.teacher))
        hand = {
            f"{name}_to_teacher_cos": cosines(student, teacher),
            f"{name}_to_source_cos": cosines(student, source),
            f"teacher_{name}_to_source_cos": cosines(teacher, source),
        }
        for column, values in hand.items():
            assert found.per_effect[part.effect][column] == pytest.approx(sum(values) / 5, abs=2e-5)
            if not column.startswith("teacher_"):
                assert found.per_picture[part.effect][column] == pytest.approx(values, abs=2e-5)
                assert max(values) - min(values) > 1e-3, "the model must tell pictures apart"
            every.setdefault(column, []).extend(values)
    assert found.values == pytest.approx({column: sum(values) / 10 for column, values in every.items()}, abs=2e-5)
    assert {found.quantity(column).better for column in found.values} == {"higher"}
    reference = found.quantity(f"teacher_{name}_to_source_cos").reference
    assert reference is not None
    assert (reference.who, reference.of) == ("teacher", f"{name}_to_source_cos")


def test_the_same_picture_has_cosine_1_and_batches_do_not_matter(encoders: Path):
    source = random(0)
    same = Evaluation([EffectPictures("one", tuple("abcde"), source, source, source, {})], None)
    found = metric(encoders / "clip").measure(same)
    assert all(value == pytest.approx(1) for value in found.values.values())
    once, alone = measure(encoders / "dinov2", batch_size=16), measure(encoders / "dinov2", batch_size=1)
    assert once.values == pytest.approx(alone.values, abs=1e-6)


def test_without_a_teachers_pictures_the_sources_are_left(encoders: Path):
    found = metric(encoders / "clip", label="c").measure(evaluation(teacher=False))
    assert set(found.values) == {"c_to_source_cos"}
    assert set(found.per_effect["two"]) == {"c_to_teacher_cos", "c_to_source_cos", "teacher_c_to_source_cos"}


def test_labels_are_columns_of_their_own():
    assert metric("openai/clip-vit-large-patch14").column == "clip_vit_large_patch14"
    one, other = metric("a/dino"), metric("b/dino")
    (sentence,) = one.check_evaluation(True, [ToTeacherMetric(), other])
    assert "'dino'" in sentence
    assert not list(one.check_evaluation(False, [metric("b/dino", label="big")]))
    assert "'Große'" in next(iter(metric("x/y", label="Große").check()))  # before the Hub is asked


def test_a_sound_folder_has_no_problem(encoders: Path):
    for name in ("clip", "dinov2", "vit"):
        assert list(metric(encoders / name).check()) == []


def test_a_folder_that_is_not_there_is_told_before_anything_is_loaded(tmp_path: Path):
    (sentence,) = metric(tmp_path / "clipp").check()
    assert "clipp' is no folder and no Hub id" in sentence


def copied(folder: Path, to: Path) -> Path:
    to.mkdir()
    for file in folder.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    return to


def test_a_pickle_is_refused_by_check_and_by_loading(encoders: Path, tmp_path: Path):
    from safetensors.torch import load_file

    folder = copied(encoders / "clip", tmp_path / "clip")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    (sentence,) = metric(folder).check()
    assert "a pickle, pytorch_model.bin" in sentence
    with pytest.raises(CloraError, match="cannot be loaded as an image encoder"):
        measure(folder)


def test_what_is_broken_or_missing_in_a_folder_is_told_all_at_once(encoders: Path, tmp_path: Path):
    folder = copied(encoders / "clip", tmp_path / "clip")
    (folder / "config.json").write_text("[1]")
    (folder / "preprocessor_config.json").unlink()
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    sentences = list(metric(folder, revision="main").check())
    assert len(sentences) == 4
    for word, sentence in zip(("revision", "config.json", "preprocessor", "safetensors"), sentences, strict=True):
        assert word in sentence


def test_weights_that_lack_tensors_are_refused_rather_than_drawn_at_random(encoders: Path, tmp_path: Path):
    from safetensors.torch import load_file, save_file

    folder = copied(encoders / "dinov2", tmp_path / "dinov2")
    tensors = load_file(folder / "model.safetensors")
    lost = next(name for name in tensors if "layer.1" in name)
    save_file({k: v for k, v in tensors.items() if k != lost}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(CloraError, match="weights lack 1 tensors of a Dinov2Model"):
        measure(folder)


def test_code_beside_the_weights_is_not_run(encoders: Path, tmp_path: Path):
    import json

    folder = copied(encoders / "dinov2", tmp_path / "dinov2")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Config: ...\nclass Model: ...\n")
    with pytest.raises(CloraError, match="cannot be loaded as an image encoder"):
        measure(folder)
    assert not (tmp_path / "ran").exists()


def test_of_a_hub_id_the_small_files_are_checked_and_one_commit_is_loaded(
    encoders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import huggingface_hub
    import transformers

    folder = copied(encoders / "dinov2", tmp_path / ("c" * 40))
    asked, loaded = [], []
    monkeypatch.setattr(
        huggingface_hub, "hf_hub_download", lambda model, name, **how: asked.append((model, name, how)) or folder / name
    )
    similarity = metric("someone/dino", revision="v1")
    assert list(similarity.check()) == []
    assert [name for _, name, _ in asked] == ["config.json", "preprocessor_config.json"]
    assert all(how["revision"] == "v1" for _, _, how in asked)
    for cls in (transformers.AutoModel, transformers.AutoImageProcessor):
        real = cls.from_pretrained
        monkeypatch.setattr(
            cls, "from_pretrained", lambda place, real=real, **how: loaded.append((place, how)) or real(folder, **how)
        )
    assert set(similarity.measure(evaluation()).values) == {
        "dino_to_teacher_cos",
        "dino_to_source_cos",
        "teacher_dino_to_source_cos",
    }
    assert [(place, how["revision"]) for place, how in loaded] == [("someone/dino", "c" * 40)] * 2
    assert all(how["trust_remote_code"] is False for _, how in loaded)
    assert loaded[1][1]["use_safetensors"] is True


def test_a_hub_id_that_cannot_be_had_is_told_by_check(monkeypatch: pytest.MonkeyPatch):
    import huggingface_hub

    def refuse(*_: object, **__: object) -> Path:
        raise huggingface_hub.errors.LocalEntryNotFoundError("not here")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    sentences = list(metric("someone/dino").check())
    assert len(sentences) == 2
    assert all("hf download someone/dino" in sentence for sentence in sentences)
