import numpy as np
import pytest
from PIL import Image

from a2lc_backend.bench.proposal_noise import guess_labels, propose_masks
from a2lc_backend.bench.scene_canvas import CLASSES, DUSK, LIGHT, NOON, SIGN, Camera, Canvas
from a2lc_backend.bench.scene_street import draw_scene
from a2lc_backend.bench.scenes import draw_world
from a2lc_backend.bench.world import World
from a2lc_backend.masks import label_map
from a2lc_backend.metrics import confusion_matrix, mean_iou

SMALL = (120, 160)


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    return draw_world(tmp_path_factory.mktemp("scenes"), images=16, val_images=3, size=SMALL, seed=1)


def best_labels(world: World, name: str) -> np.ndarray:
    """The class that most pixels of each mask show."""
    masks = world.mask_set(name)
    votes = np.zeros((len(masks) + 1, len(world.classes)), np.int64)
    np.add.at(votes, (masks.mask_ids, world.truth(name)), 1)
    return votes[1:].argmax(axis=1)


def contents(folder) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_writes_a_whole_world(world):
    assert world.classes == CLASSES
    assert len(world.names) == 16
    assert len(world.val_names) == 3
    assert world.backbone_path is None
    assert world.image(world.names[0]).shape == (*SMALL, 3)
    assert world.val_image(world.val_names[0]).shape == (*SMALL, 3)
    assert world.val_truth(world.val_names[0]).max() < len(CLASSES)


def test_every_class_is_drawn(world):
    seen = set()
    for name in world.names:
        seen.update(np.unique(world.truth(name)).tolist())
    assert seen == set(range(len(CLASSES)))


def test_label_files_show_their_classes_in_colour(world):
    with Image.open(world.root / "pool" / "labels" / f"{world.names[0]}.png") as image:
        assert image.mode == "P"
        assert image.convert("RGB").getpixel((80, 2)) != (0, 0, 0)


def test_masks_are_many_and_cover_the_image(world):
    counts = [len(world.mask_set(name)) for name in world.names]
    assert min(counts) >= 25
    assert max(counts) <= 45
    for name in world.names:
        masks = world.mask_set(name)
        assert (masks.areas() > 0).all()
        assert (masks.mask_ids > 0).mean() > 0.97


def test_masks_are_mostly_but_not_wholly_pure(world):
    purity = []
    for name in world.names:
        masks = world.mask_set(name)
        right = label_map(masks.mask_ids, best_labels(world, name)) == world.truth(name)
        purity += [right[masks.mask(index)].mean() for index in range(len(masks))]
    assert 0.82 < np.mean(purity) < 0.94


def test_first_labels_are_wrong_as_often_as_promised(world):
    first = np.zeros((len(CLASSES), len(CLASSES) + 1), np.int64)
    ceiling = np.zeros_like(first)
    wrong = []
    for name in world.names:
        masks, truth, best = world.mask_set(name), world.truth(name), best_labels(world, name)
        first += confusion_matrix(truth, label_map(masks.mask_ids, masks.first_labels), len(CLASSES))
        ceiling += confusion_matrix(truth, label_map(masks.mask_ids, best), len(CLASSES))
        wrong += (best != masks.first_labels).tolist()
    assert 0.48 < mean_iou(first) < 0.62
    assert 0.79 < mean_iou(ceiling) < 0.89
    assert 0.24 < np.mean(wrong) < 0.42


def test_first_labels_are_wrong_in_a_way_that_can_be_learned(world):
    counts = np.zeros((len(CLASSES), len(CLASSES)), np.int64)
    for name in world.names:
        np.add.at(counts, (best_labels(world, name), world.mask_set(name).first_labels), 1)
    np.fill_diagonal(counts, 0)
    assert counts[SIGN].argmax() == LIGHT
    assert counts.max(axis=1).sum() > 0.5 * counts.sum()


def test_the_same_seed_writes_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        draw_world(tmp_path / name, images=2, val_images=1, size=SMALL, seed=3)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_another_seed_draws_another_town(tmp_path):
    one, two = (draw_world(tmp_path / str(seed), images=1, val_images=0, size=SMALL, seed=seed) for seed in (0, 7))
    assert not np.array_equal(one.image("street-001"), two.image("street-001"))
    assert one.val_names == ()


def test_a_scene_does_not_depend_on_how_many_are_drawn(tmp_path):
    few = draw_world(tmp_path / "few", images=1, val_images=0, size=SMALL)
    more = draw_world(tmp_path / "more", images=2, val_images=1, size=SMALL)
    np.testing.assert_array_equal(few.image("street-001"), more.image("street-001"))
    assert few.pseudo_labels["street-001"] == more.pseudo_labels["street-001"]


def test_draws_over_its_own_images_only(tmp_path):
    draw_world(tmp_path, images=2, val_images=0, size=SMALL)
    draw_world(tmp_path, images=2, val_images=0, size=SMALL)
    with pytest.raises(ValueError, match="draw into an empty folder"):
        draw_world(tmp_path, images=1, val_images=0, size=SMALL)


def test_tells_its_progress(tmp_path):
    steps = []
    draw_world(
        tmp_path, images=1, val_images=1, size=(96, 128), progress=lambda done, total: steps.append((done, total))
    )
    assert steps == [(1, 2), (2, 2)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": 0}, "ask for 1 or more"),
        ({"val_images": -1}, "ask for 1 or more"),
        ({"size": (60, 320)}, "96×128 or more"),
        ({"seed": -1}, "0 or more"),
    ],
)
def test_refuses_what_it_cannot_draw(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        draw_world(tmp_path / "none", **arguments)
    assert not (tmp_path / "none").exists()


def test_image_and_truth_share_their_geometry():
    canvas = Canvas((40, 60), Camera(focal=50, height=2, centre=30, horizon=20), NOON)
    canvas.background(np.zeros((40, 60, 3), np.uint8), canvas.add(0))
    canvas.fill([(10, 10), (30, 10), (30, 30), (10, 30)], (255, 255, 255), canvas.add(SIGN))
    image, numbers = canvas.finish()
    np.testing.assert_array_equal(image[..., 0] > 128, numbers == 1)
    assert canvas.objects == [0, SIGN]


def test_a_point_on_the_ground_lies_below_the_horizon_and_nears_it_with_depth():
    camera = Camera(focal=250, height=2, centre=160, horizon=120)
    rows = [camera.project((0, 0, depth))[1] for depth in (5, 10, 100)]
    assert rows == [220, 170, 125]


def test_a_night_scene_is_darker_than_a_day_scene():
    day, night = (draw_scene(np.random.default_rng(5), SMALL, light)[0].mean() for light in (NOON, DUSK))
    assert night < day - 20


def test_masks_and_labels_of_one_scene():
    rng = np.random.default_rng(2)
    image, truth, objects = draw_scene(rng, SMALL, NOON)
    masks = propose_masks(rng, image, objects, truth)
    assert masks.dtype == np.uint8
    assert masks.shape == SMALL
    assert np.setdiff1d(np.unique(masks), 0).tolist() == list(range(1, masks.max() + 1))
    labels = guess_labels(rng, image, masks, truth)
    assert len(labels) == masks.max()
    assert set(labels) <= set(range(len(CLASSES)))
