"""What others send, at random and nearly right: a value or the documented error, soon, and nothing else."""

from __future__ import annotations

import json
import resource
import struct
import time
import zlib
from collections.abc import Iterator
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from a2lc_backend.app import create_app
from a2lc_backend.export.names import file_names
from a2lc_backend.foundation import Prompts
from a2lc_backend.image_limits import without_secrets
from a2lc_backend.images import ImageError, decode_image, decode_mask_png, decode_mask_rle, encode_mask_rle
from a2lc_backend.label_configs import PRESETS, label_config
from a2lc_backend.label_studio import patience
from a2lc_backend.label_studio.project import LabelStudioProject
from a2lc_backend.label_studio.review import ReviewDesk
from a2lc_backend.masks import Region
from a2lc_backend.prompts import PromptError, parse_prompts
from a2lc_backend.regions import (
    LabelConfig,
    LabelConfigError,
    RegionError,
    decode_region,
    encode_region,
    is_region_id,
    parse_label_config,
)
from a2lc_backend.rounds.platform import AnnotationStamp
from a2lc_backend.rounds.propose import picture_key
from a2lc_backend.rounds.workspace import Workspace
from a2lc_backend.service import Service
from a2lc_backend.settings import Settings, SettingsError
from a2lc_backend.store import Artifacts, Correction, ReviewProject, SeenAnnotation
from tests.conftest import OWN_TOKEN
from tests.test_prompts import SIZE, item, point

pytestmark = pytest.mark.timed

fuzz = settings(
    max_examples=150, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip

NOON = datetime(2026, 11, 22, 12, tzinfo=timezone.utc)

numbers = st.integers() | st.floats() | st.sampled_from([0, -1, 2**31, 2**63, 10**30, 1e308])
texts = st.text(max_size=20) | st.sampled_from(["\0", "\ud800", "../../x", "a" * 300, "a/b", "\u202e", "%2e%2e", "$x"])
leaves = st.none() | st.booleans() | numbers | texts
anything = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=10
)


@st.composite
def nearly(draw: st.DrawFn, whole: Any) -> Any:
    """Something of the right form, with a few of its parts replaced, doubled or left out."""
    changed = json.loads(json.dumps(whole))
    for _ in range(draw(st.integers(0, 3))):
        place, key = {"": changed}, ""
        while True:
            inner = place[key]  # type: ignore[index]
            keys = (
                list(inner) if isinstance(inner, dict) else list(range(len(inner))) if isinstance(inner, list) else []
            )
            if not keys or draw(st.integers(0, 3)) == 0:
                break
            place, key = inner, draw(st.sampled_from(keys))
        if place is not changed and isinstance(place, dict | list) and key != "":
            if draw(st.booleans()) and isinstance(place, dict):
                del place[key]
            else:
                place[key] = draw(anything)  # type: ignore[index]
    return changed


@pytest.fixture(autouse=True)
def quick() -> Iterator[None]:
    begun = time.monotonic()
    yield
    assert time.monotonic() - begun < 60


# --- label configs

CONFIG_TEXT = label_config(PRESETS["camvid"], "bitmask", smart=True)
PIECES = st.sampled_from(
    [
        "<", ">", "/>", '"', "&", "<!DOCTYPE a>", "<!-- x -->", "<?x y?>", "<![CDATA[<Label/>]]>", "&#0;", "\0",
        "&#xD800;", "\ud800", '<Label value="Sky"/>', "<BrushLabels>", '<Image name="image" value="$a"/>', "</View>",
        'xmlns:a="b"', "<a:b/>", '<Label value="x" alias="Sky" prompt=",;."/>', "$", "￿", "{}",
    ]
)  # fmt: skip


@fuzz
@given(st.lists(st.tuples(st.integers(0, len(CONFIG_TEXT)), st.integers(0, 30), PIECES | texts), max_size=4))
def test_a_label_config_is_one_or_says_what_is_wrong(edits: list[tuple[int, int, str]]) -> None:
    text = CONFIG_TEXT
    for place, length, piece in edits:
        text = text[:place] + piece + text[place + length :]
    try:
        config = parse_label_config(text)
    except LabelConfigError:
        return
    assert config.image_key and 0 < len(config.classes) <= 255
    assert all(label.prompts for label in config.labels)


@pytest.mark.parametrize(
    "text",
    [
        '<!DOCTYPE a [<!ENTITY b "xx">]><View>&b;</View>',
        '<?xml version="1.0"?>\n<!DocType a SYSTEM "file:///etc/passwd"><View/>',
        '<!DOCTYPE a [<!ENTITY % b SYSTEM "http://127.0.0.1:9/x">%b;]><View/>',
        '<View xmlns:xi="http://www.w3.org/2001/XInclude"><xi:include href="/etc/passwd" parse="text"/></View>',
        '<?xml version="1.0" encoding="utf-16"?><View/>',
        "<View>" * 60_000 + "</View>" * 60_000,
        '<View><Image name="i" value="$i"/>' + '<BrushLabels name="a" toName="i">' * 15_000 + '<Label value="x"/>'
        + "</BrushLabels>" * 15_000 + "</View>",
        "<View>" + "<Label/>" * 200_000 + "</View>",
    ],
)  # fmt: skip
def test_a_label_config_opens_nothing_and_takes_no_time(text: str) -> None:
    begun = time.monotonic()
    with pytest.raises(LabelConfigError):
        parse_label_config(text)
    assert time.monotonic() - begun < 2


# --- regions

CONFIGS = [parse_label_config(label_config(PRESETS["camvid"], kind)) for kind in ("brush", "bitmask", "polygon")]
SQUARE = np.zeros((30, 40), np.bool_)
SQUARE[5:20, 5:20] = True


@fuzz
@given(st.data(), st.sampled_from(CONFIGS))
def test_a_region_is_one_or_says_what_is_wrong(data: st.DataObject, config: LabelConfig) -> None:
    whole = encode_region(Region("r1", "Road", SQUARE, 0.5, "corrector", 3, 1, "a note", "Sky", "Tree"), config)
    try:
        region = decode_region(data.draw(nearly(whole) | anything), config, SQUARE.shape)
    except RegionError as error:
        assert len(str(error)) < 2000
        return
    assert region.mask.shape == SQUARE.shape and is_region_id(region.id)
    assert region.score is None or 0 <= region.score <= 1
    assert region.round is None or 0 <= region.round < 2**31


@fuzz
@given(texts | st.text())
def test_what_names_a_region_can_be_stored_and_asked_for(artifacts: Artifacts, ledger: Any, name: str) -> None:
    whole = encode_region(Region("r1", "Road", SQUARE), CONFIGS[1]) | {"id": name}
    try:
        region = decode_region(whole, CONFIGS[1], SQUARE.shape)
    except RegionError:
        return
    workspace = Workspace(artifacts, 3)
    key = workspace.write_shape(7, region.id, region.mask)
    assert ".." not in key and key.startswith("project-3/shapes/7-")
    assert np.array_equal(workspace.shape(key), SQUARE)
    said = Correction(7, 1, region.id, "new", 0, 0, 5, NOON, 1, key)
    ledger.save_annotation(3, SeenAnnotation(7, 1, NOON.isoformat()), [said])
    assert ledger.corrections(3) == [said]


def test_masks_cost_what_they_are_not_what_they_claim() -> None:
    size = (6000, 6000)
    before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    billion = [*struct.pack(">I", 10**9), 0b00111000, *[0] * 20]
    for rle in (billion, [255] * 100_000, [*struct.pack(">I", 4 * 36_000_000), 0b00111000, *[255] * 100_000]):
        with pytest.raises(ImageError):
            decode_mask_rle(rle, size)
    for config, value in (
        (CONFIGS[2], {"points": [[100 * i / 300_000, 100 * (i % 2)] for i in range(300_000)]}),
        (CONFIGS[2], {"points": np.random.default_rng(0).uniform(0, 100, (1_000_000, 2)).tolist()}),
        (CONFIGS[1], {"imageDataURL": f"data:image/png;base64,{'A' * 1_000_000}"}),
    ):
        item = {
            "id": "r", "type": config.kind, "from_name": config.from_name, "to_name": config.to_name,
            "original_width": 6000, "original_height": 6000, "value": value,
        }  # fmt: skip
        with pytest.raises(RegionError):
            decode_region(item, config, size)
    many = np.linspace(0, 2 * np.pi, 1_000_000)
    item |= {"type": CONFIGS[2].kind, "value": {"points": (50 + 40 * np.c_[np.cos(many), np.sin(many)]).tolist()}}
    assert decode_region(item, CONFIGS[2], size).mask.sum() == pytest.approx(np.pi * 2400**2, rel=1e-3)
    assert time.monotonic() - begun < 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2_000_000, "KB"


# --- images


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, height: int, rows: bytes, *more: bytes) -> bytes:
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(more) + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")


BOMBS = {
    "png": _png(60_000, 60_000, b"\0" * 10**7),
    "png that holds more than it says": _png(2, 2, b"\0" * 3 * 10**8),
    "png with a long text": _png(2, 2, b"\0" * 14, _chunk(b"zTXt", b"a\0\0" + zlib.compress(b"x" * 3 * 10**8))),
    "png with a long profile": _png(2, 2, b"\0" * 14, _chunk(b"iCCP", b"a\0\0" + zlib.compress(b"x" * 3 * 10**8))),
    "bmp": b"BM" + struct.pack("<IHHIIiiHHIIIIII", 100, 0, 0, 54, 40, 65_000, 65_000, 1, 24, 0, 0, 0, 0, 0, 0),
    "gif": b"GIF89a" + struct.pack("<HHBBB", 65_535, 65_535, 0, 0, 0) + b",\0\0\0\0\xff\xff\xff\xff\0\x02\0;",
    "webp": b"RIFF\x1e\0\0\0WEBPVP8L\x11\0\0\0/\xff\xff\xff\x0f" + b"\0" * 13,
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_images_cost_what_they_may(name: str) -> None:
    before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    try:
        assert decode_image(BOMBS[name], 64_000_000).size < 100
    except ImageError as error:
        assert len(str(error)) < 500
    assert time.monotonic() - begun < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000, "KB"


HEADS = [
    b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"GIF89a", b"BM", b"RIFF\x40\0\0\0WEBPVP8 ", b"II*\0", b"MM\0*",
    b"\0\0\0\x20ftypavif", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"P6 9 9 255\n", b"\0\0\x01\0",
]  # fmt: skip


@fuzz
@given(st.sampled_from(HEADS), st.binary(max_size=400))
def test_bytes_are_an_image_or_not(head: bytes, rest: bytes) -> None:
    try:
        assert decode_image(head + rest, 10**6).shape[2] == 3
    except ImageError as error:
        assert len(str(error)) < 1000


@fuzz
@given(st.text() | st.binary().map(lambda data: f"data:image/png;base64,{data.hex()}") | anything)
def test_mask_pictures_are_ones_or_not(url: Any) -> None:
    with pytest.raises(ImageError):
        decode_mask_png(url, SIZE)


# --- prompts of smart tools

STROKE = np.zeros(SIZE, np.bool_)
STROKE[3:6, 3:30] = True
PROMPTS = [
    point(50, 25),
    item("rectanglelabels", {"x": 10, "y": 20, "width": 30, "height": 50, "rotation": 0}),
    item("brushlabels", {"format": "rle", "rle": encode_mask_rle(STROKE)}),
]


@fuzz
@given(st.lists(st.one_of(*map(nearly, PROMPTS), anything), max_size=5))
def test_prompts_are_ones_or_say_what_is_wrong(items: list[Any]) -> None:
    try:
        prompts, label = parse_prompts(items, SIZE)
    except PromptError as error:
        assert len(str(error)) < 500
        return
    assert isinstance(prompts, Prompts) and (label is None or isinstance(label, str))
    assert np.isfinite(prompts.points).all() and (prompts.points >= 0).all()
    assert (prompts.points <= (SIZE[1] - 1, SIZE[0] - 1)).all()


def test_too_many_prompts_are_not_read() -> None:
    with pytest.raises(PromptError, match="100 are the most"):
        parse_prompts([point(1, 1)] * 101, SIZE)


# --- annotations, as anybody with Label Studio's API may write them


def _project(annotation: Any) -> LabelStudioProject:
    client = SimpleNamespace(
        annotations=SimpleNamespace(get=lambda id: annotation),
        projects=SimpleNamespace(get=lambda id: SimpleNamespace(label_config=CONFIG_TEXT, title="Streets")),
        predictions=SimpleNamespace(get=lambda id: SimpleNamespace(model_version="a2lc-r2-1")),
    )
    return LabelStudioProject(cast(Any, client), "http://127.0.0.1:9", 3)


WHOLE = [encode_region(Region(name, "Road", SQUARE, 0.5, "foundation", 3, 1), CONFIGS[1]) for name in ("a", "b")]


@fuzz
@given(nearly(WHOLE) | anything)
def test_annotations_are_read_region_by_region(result: Any) -> None:
    made = SimpleNamespace(result=result, updated_at=NOON, created_at=NOON, parent_prediction=None, completed_by=5)
    found = _project(made).annotation(AnnotationStamp(1, 1, ""), SQUARE.shape)
    assert found is not None and len(found.problems) == len(found.unreadable)
    assert all(len(message) < 2000 for message in found.problems)


ANSWERED = {
    "data": {"a2lc": {"project": 3, "round": 1, "task": 7, "region": "r1"}},
    "annotations": [
        {
            "id": 9, "completed_by": 5, "updated_at": "2026-11-22T10:30:00Z", "was_cancelled": False,
            "result": [{"id": "x", "type": "choices", "value": {"choices": ["Road"]}}],
        }
    ],
}  # fmt: skip


@fuzz
@given(st.data())
def test_answers_are_read_or_left_out(data: st.DataObject) -> None:
    where = data.draw(nearly(ANSWERED["data"]))
    result = data.draw(nearly(ANSWERED["annotations"][0]["result"]) | anything)  # type: ignore[index]
    said = ANSWERED["annotations"][0] | {"result": result}  # type: ignore[operator,index]
    task = SimpleNamespace(id=1, data=where, annotations=[said], updated_at=datetime.now(timezone.utc))

    class Pages(list[Any]):
        response = SimpleNamespace(total=1)

    client = SimpleNamespace(
        tasks=SimpleNamespace(list=lambda **_: Pages([task])),
        projects=SimpleNamespace(get=lambda id: SimpleNamespace(id=id)),
    )
    desk = ReviewDesk(cast(Any, client), "http://127.0.0.1:9", 3, "", ReviewProject(4, "secret"))
    for stamp in desk.stamps():
        assert stamp.reply is not None and 0 <= stamp.reply.mask.round < 2**31
        assert is_region_id(stamp.reply.mask.region_id)


# --- what else people write


@fuzz
@given(
    st.dictionaries(st.sampled_from(["budget", "proposals", "audit", "annotators", "x"]) | texts, anything, max_size=4)
)
def test_extra_params_are_settings_or_say_what_is_wrong(params: dict[str, Any]) -> None:
    try:
        Settings().project(params)
    except SettingsError as error:
        assert "project settings" in str(error)


@fuzz
@given(
    st.lists(texts | st.text() | st.sampled_from(["/data/local-files/?d=../../x", "C:\\a\\b.png", "//[", "a" * 999]))
)
def test_names_of_files_are_plain(addresses: list[str]) -> None:
    for name in file_names(dict(enumerate(addresses))).values():
        assert name and len(name) < 130 and all(sign.isascii() and (sign.isalnum() or sign in "._-") for sign in name)
        assert not name.startswith((".", "-"))
    for address in addresses:
        assert "/" not in picture_key(address)
        assert len(without_secrets(address)) <= 400


# --- the web server

WEBHOOK = {
    "action": "ANNOTATION_CREATED", "project": {"id": 3, "label_config": CONFIG_TEXT},
    "task": {"id": 7, "data": {"image": "/data/upload/3/a.png"}}, "annotation": {"id": 9, "result": WHOLE},
}  # fmt: skip
PREDICT = {
    "tasks": [{"id": 7, "project": 3, "data": {"image": "/data/upload/3/a.png"}}], "project": "3.17",
    "label_config": CONFIG_TEXT, "params": {"context": {"result": PROMPTS}},
}  # fmt: skip
SETUP = {"project": "3.17", "schema": CONFIG_TEXT, "extra_params": {}}


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("fuzz")
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(patience, "GREETING_SECONDS", 0.0)
    settings = Settings(data_dir=folder, label_studio_url="http://127.0.0.1:9", label_studio_api_key="f" * 40)  # type: ignore[arg-type]
    with TestClient(create_app(Service(settings)), headers=OWN_TOKEN) as client:
        yield client
    monkeypatch.undo()


@fuzz
@given(st.sampled_from([("/webhook", WEBHOOK), ("/setup", SETUP), ("/predict", PREDICT)]), st.data())
def test_what_label_studio_sends_is_taken_or_refused(
    web: TestClient, what: tuple[str, dict[str, Any]], data: st.DataObject
) -> None:
    body = data.draw(nearly(what[1]) | anything)
    text = json.dumps(body, ensure_ascii=data.draw(st.booleans()))
    reply = web.post(what[0], content=text.encode(errors="surrogatepass"), headers={"Content-Type": "application/json"})
    assert reply.status_code in {200, 400, 422, 502}, reply.text
    assert len(reply.content) < 200_000


@fuzz
@given(st.sampled_from(["/webhook", "/setup", "/predict"]), st.binary(max_size=200))
def test_bytes_are_refused(web: TestClient, path: str, body: bytes) -> None:
    assert web.post(path, content=body, headers={"Content-Type": "application/json"}).status_code in {400, 422}
