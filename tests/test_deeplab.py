from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch
from structlog.testing import capture_logs

from a2lc_backend.masks import IGNORE
from a2lc_backend.segmenter import (
    ENCODERS,
    PAPER,
    SegmenterError,
    Training,
    crops,
    deeplab,
    deeplab_net,
    enlarge,
    make_segmenter,
)
from a2lc_backend.segmenter.deeplab_net import build_network, network_input
from a2lc_backend.settings import ProjectSettings
from tests.tiny_deeplab import CPU, LONG, PAIRS, OutOfMemory, build, samples, small_scale


@pytest.fixture(scope="module", autouse=True)
def quick():
    with small_scale():
        yield


@pytest.fixture(scope="module")
def trained():
    segmenter = build(LONG)
    segmenter.fit(samples)
    return segmenter


class TestSegmenter:
    def test_learns_two_colours(self, trained):
        for image, labels in PAIRS:
            soft = trained.soft_labels(trained.prepare(image))
            assert soft.dtype == np.float32
            assert soft.shape == (2, 20, 24)
            np.testing.assert_allclose(soft.sum(axis=0), 1, atol=1e-5)
            assert (enlarge(soft, labels.shape).argmax(axis=0) == labels).mean() > 0.9

    def test_the_soft_labels_are_the_network_s(self, trained):
        image = np.random.default_rng(3).integers(0, 256, (50, 37, 3)).astype(np.uint8)
        padded = np.full((64, 48, 3), crops.GREY, np.uint8)
        padded[:50, :37] = image
        x = (torch.from_numpy(padded) / 255 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
        with torch.inference_mode():
            expected = trained._net(x.permute(2, 0, 1)[None]).softmax(dim=1)[0, :, :13, :10]
        np.testing.assert_allclose(trained.soft_labels(image), expected.numpy(), atol=1e-5)

    def test_the_same_seed_gives_the_same_bytes(self):
        states = []
        for seed in (0, 0, 1):
            rng_before = torch.random.get_rng_state()
            segmenter = build(seed=seed)
            segmenter.fit(samples)
            states.append(segmenter.state())
            assert torch.equal(torch.random.get_rng_state(), rng_before), "others' random draws are left alone"
        assert states[0] == states[1] != states[2]

    def test_state_restores_exactly_and_a_new_class_has_probability_0(self, trained):
        restored, larger = build(seed=5), build(classes=4)
        image = PAIRS[0][0]
        soft = trained.soft_labels(image)
        restored.load(trained.state())
        larger.load(trained.state())
        assert restored.soft_labels(image).tobytes() == soft.tobytes()
        assert restored.state() == trained.state()
        np.testing.assert_array_equal(larger.soft_labels(image)[:2], soft)
        assert (larger.soft_labels(image)[2:] == 0).all()

    def test_a_state_of_another_encoder_or_kind(self, trained):
        for other in (build(Training("resnet34")), make_segmenter("unet", classes=2, device="cpu")):
            with pytest.raises(SegmenterError, match="deeplabv3plus-resnet18 segmenter"):
                other.load(trained.state())

    def test_without_labels_the_soft_labels_are_uniform(self):
        segmenter = build(classes=4)
        unlabelled = [(image, np.full_like(labels, IGNORE)) for image, labels in PAIRS]
        for nothing in ([], unlabelled):
            segmenter.fit(lambda pairs=nothing: iter(pairs))
            np.testing.assert_allclose(segmenter.soft_labels(PAIRS[0][0]), 0.25)
        again = build(classes=4)
        again.load(segmenter.state())
        np.testing.assert_allclose(again.soft_labels(PAIRS[0][0]), 0.25)

    @pytest.mark.parametrize("size", [(1, 1), (1, 40), (5, 300)])
    def test_tiny_images(self, trained, size):
        soft = trained.soft_labels(trained.prepare(np.full((*size, 3), 90, np.uint8)))
        assert soft.shape == (2, max(round(size[0] / 4), 1), max(round(size[1] / 4), 1))
        assert np.isfinite(soft).all()

    def test_one_image_smaller_than_a_crop_and_read_only_will_do(self):
        image, labels = np.full((5, 9, 3), 90, np.uint8), np.ones((5, 9), np.uint8)
        image.flags.writeable = labels.flags.writeable = False
        segmenter = build()
        segmenter.fit(lambda: iter([(segmenter.prepare(image), labels)]))
        assert np.isfinite(segmenter.soft_labels(image)).all()

    @pytest.mark.parametrize(
        "array",
        [np.zeros((4, 5), np.uint8), np.zeros((4, 5, 3), np.float32), np.zeros((4, crops.SIDE + 1, 3), np.uint8)],
    )
    def test_an_array_of_another_kind(self, array):
        with pytest.raises(SegmenterError, match="prepare the images again"):
            build().soft_labels(array)
        with pytest.raises(SegmenterError, match="prepare the images again"):
            build().fit(lambda: iter([(array, np.zeros(array.shape[:2], np.uint8))]))

    def test_a_label_that_is_no_class(self):
        with pytest.raises(SegmenterError, match="label 1, but there are 1 classes"):
            build(classes=1).fit(samples)

    def test_large_images_are_shrunk_and_small_ones_kept(self):
        segmenter = build()
        assert segmenter.prepare(np.zeros((1500, 3000, 3), np.uint8)).shape == (1024, 2048, 3)
        assert segmenter.prepare(np.zeros((1, 9000, 3), np.uint8)).shape == (4, 2048, 3)
        assert segmenter.prepare(np.zeros((7, 9, 3), np.uint8)).shape == (8, 8, 3)
        assert segmenter.fingerprint == "pixels-2048-4"

    @pytest.mark.parametrize(
        ("more", "message"),
        [
            ({"training": Training("vgg")}, "no encoder is named 'vgg'; choose one of resnet18"),
            ({"backbone": "/no/such.pth"}, "set A2LC_BACKBONE to a .pth file"),
            ({"backbone": "/some.pt2"}, "set A2LC_BACKBONE to a .pth file"),
        ],
    )
    def test_what_cannot_be_built_names_the_mend(self, more, message, tmp_path):
        if "backbone" in more:
            more = {"backbone": tmp_path / more["backbone"].rsplit("/", 1)[1]}
            if more["backbone"].suffix == ".pt2":
                more["backbone"].write_bytes(b"a program")
        with pytest.raises(SegmenterError, match=message):
            build(**more)

    @pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
    def test_mixed_precision_scores_alike(self, monkeypatch, trained, half):
        image = PAIRS[0][0]
        whole = trained.soft_labels(image)
        monkeypatch.setattr(deeplab_net, "half_type", lambda device: half)
        assert 0 < np.abs(trained.soft_labels(image) - whole).max() < 0.1


def test_settings_are_the_paper_s():
    settings = ProjectSettings()
    assert get_args(ProjectSettings.model_fields["encoder"].annotation) == ENCODERS
    assert (
        Training(settings.encoder, settings.iterations, settings.crop, settings.batch, settings.learning_rate) == PAPER
    )
    assert Training("resnet101", 30_000, 768, 8, 0.05) == PAPER
    for wrong in ({"crop": 31}, {"batch": 0}, {"learning_rate": 0}, {"iterations": 0}, {"encoder": "vgg"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            ProjectSettings(**wrong)


class TestNetwork:
    def test_all_encoders_give_a_quarter_of_the_resolution(self):
        with torch.device("meta"):
            for encoder in ENCODERS:
                network = build_network(encoder, 3, None, 0).eval()
                assert network.encoder(torch.zeros(1, 3, 64, 96))[-1].shape[2:] == (4, 6)
                assert network(torch.zeros(1, 3, 64, 96)).shape == (1, 3, 16, 24)

    def test_torchvision_s_weights_go_into_the_encoder(self, tmp_path):
        from torchvision.models import resnet18

        torch.manual_seed(7)
        state = resnet18(weights=None).state_dict()
        torch.save(state, tmp_path / "resnet18.pth")
        encoder = build_network("resnet18", 3, tmp_path / "resnet18.pth", 0).encoder
        own = encoder.state_dict()
        assert set(own) == {name for name in state if not name.startswith("fc.")}
        assert all(torch.equal(own[name], state[name]) for name in own)
        assert {m.momentum for m in encoder.modules() if isinstance(m, torch.nn.BatchNorm2d)} == {0.01}
        with pytest.raises(SegmenterError, match="not hold the weights of a resnet34; set A2LC_ENCODER"):
            build_network("resnet34", 3, tmp_path / "resnet18.pth", 0)
        with capture_logs() as logs:
            build(backbone=tmp_path / "resnet18.pth").fit(samples)
        assert logs == []

    def test_random_weights_are_said_once(self):
        with capture_logs() as logs:
            build().fit(samples)
        assert ["A2LC_BACKBONE" in entry["event"] for entry in logs] == [True]

    def test_jitter_is_torchvision_s(self):
        from torchvision.transforms.v2 import functional as transforms

        image = np.random.default_rng(0).integers(0, 256, (1, 8, 9, 3)).astype(np.uint8)
        factors = np.array([[1.4, 0.6, 1.3]], np.float32)
        expected = torch.from_numpy(image).permute(0, 3, 1, 2).float() / 255
        expected = transforms.adjust_brightness(expected, 1.4)
        expected = transforms.adjust_contrast(expected, 0.6)
        expected = transforms.adjust_saturation(expected, 1.3)
        expected = transforms.normalize(expected, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
        torch.testing.assert_close(network_input(image, CPU, factors), expected, atol=2e-3, rtol=0)


class TestScoringInTiles:
    def test_out_of_memory_goes_on_in_tiles(self, monkeypatch, trained):
        image = np.concatenate([np.concatenate([PAIRS[0][0]] * 4, axis=1)] * 3, axis=0)  # 240 × 384
        labels = np.concatenate([np.concatenate([PAIRS[0][1]] * 4, axis=1)] * 3, axis=0)
        whole = trained.soft_labels(image)
        hungry = OutOfMemory(monkeypatch, most=2 * 192 * 192)
        segmenter = build()
        segmenter.load(trained.state())
        soft = segmenter.soft_labels(image)
        assert soft.shape == whole.shape
        np.testing.assert_allclose(soft.sum(axis=0), 1, atol=1e-5)
        assert (enlarge(soft, labels.shape).argmax(axis=0) == labels).mean() > 0.85
        assert (soft.argmax(axis=0) == whole.argmax(axis=0)).mean() > 0.9
        assert np.abs(soft - whole).mean() < 0.1
        before = len(hungry.asked)
        np.testing.assert_array_equal(segmenter.soft_labels(image), soft)
        assert max(hungry.asked[before:]) <= 4 * 192 * 192, "the whole image is not tried again"

    def test_tiles_are_joined_where_they_lie(self, monkeypatch):
        """With a network that looks at single pixels, tiles and the whole image give the same."""
        segmenter = build()
        rng = np.random.default_rng(0)
        image = rng.integers(0, 256, (144, 208, 3)).astype(np.uint8)

        def looks(tiles):
            small = np.stack(tiles)[:, ::4, ::4, :2].astype(np.float32) + 1
            return list((small / small.sum(axis=3, keepdims=True)).transpose(0, 3, 1, 2))

        monkeypatch.setattr(segmenter, "_forward", looks)
        whole = segmenter._score(image)
        for tile in (48, 64, 80, 144, 192):
            segmenter._tile = tile
            np.testing.assert_allclose(segmenter._score(image), whole, atol=1e-6)

    def test_a_tile_that_does_not_fit_names_the_mend(self, monkeypatch, trained):
        OutOfMemory(monkeypatch, most=100)
        segmenter = build()
        segmenter.load(trained.state())
        with pytest.raises(SegmenterError, match="set A2LC_ENCODER to a smaller network"):
            segmenter.soft_labels(np.zeros((300, 500, 3), np.uint8))
        assert segmenter._tile >= deeplab.MIN_TILE // 2
