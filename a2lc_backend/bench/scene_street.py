"""One drawn street: sky, ground, two rows of houses, what stands and moves between them, and how a camera sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from a2lc_backend.bench.scene_buildings import House, draw_house, plan_house
from a2lc_backend.bench.scene_canvas import (
    BUILDING,
    PAVEMENT,
    ROAD,
    SKY,
    TREE,
    Camera,
    Canvas,
    Colour,
    Light,
    fractal,
    mix,
    scale,
)
from a2lc_backend.bench.scene_cars import draw_car
from a2lc_backend.bench.scene_objects import (
    draw_fence,
    draw_hedge,
    draw_person,
    draw_post,
    draw_sign,
    draw_street_lamp,
    draw_traffic_light,
    draw_tree,
)

Thing: TypeAlias = tuple[float, Callable[[], None]]
"""Something to draw: its depth in metres, and what draws it."""


@dataclass(frozen=True)
class Street:
    """The ground plan of a street; x in metres to the right of the camera."""

    left: float
    right: float
    pavement: float

    def kerb(self, side: int) -> float:
        """Where the road ends at one side."""
        return self.left if side < 0 else self.right

    def wall(self, side: int) -> float:
        """Where the houses stand at one side, metres from the camera's axis."""
        return abs(self.kerb(side)) + self.pavement


def draw_scene(
    rng: np.random.Generator, size: tuple[int, int], light: Light
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.int32]]:
    """Draw one street.

    Args:
        rng: where the chance comes from.
        size: height and width in pixels.
        light: the time of day; the side of the sun and the colours vary a little.

    Returns:
        (H, W, 3) uint8 RGB image, (H, W) uint8 class ids, (H, W) int32 object numbers (a house, a car, the road …).
    """
    light = _vary(rng, light)
    camera = Camera(
        focal=size[1] * float(rng.uniform(0.74, 0.86)),
        height=float(rng.uniform(1.75, 2.2)),
        centre=size[1] * float(rng.uniform(0.42, 0.58)),
        horizon=size[0] * float(rng.uniform(0.47, 0.54)),
    )
    middle, half = float(rng.uniform(-2.4, 0.6)), float(rng.uniform(3.4, 4.4))
    street = Street(left=middle - half, right=middle + half, pavement=float(rng.uniform(3.0, 4.2)))
    canvas = Canvas(size, camera, light)
    _draw_sky(canvas, rng)
    _draw_ground(canvas, rng, street)
    for side in (-1, 1):
        _draw_row(canvas, rng, street, side)
    _draw_traffic(canvas, rng, street)
    seen, numbers = canvas.finish()
    truth = np.array(canvas.objects, np.uint8)[numbers]
    return _photograph(rng, seen, truth), truth, numbers


def _vary(rng: np.random.Generator, light: Light) -> Light:
    tint = rng.uniform(0.94, 1.06, 3)
    low = (light.sky_low[0] * tint[0], light.sky_low[1] * tint[1], light.sky_low[2] * tint[2])
    return replace(
        light,
        sky_low=low,
        sun_side=int(rng.choice([-1, 1])),
        haze_depth=light.haze_depth * float(rng.uniform(0.75, 1.3)),
        clouds=min(1.0, light.clouds * float(rng.uniform(0.4, 1.5))),
    )


def _draw_sky(canvas: Canvas, rng: np.random.Generator) -> None:
    """A gradient, clouds that thin out upwards, the glow of a low sun, and the roofs at the end of the street."""
    light, camera, (height, width) = canvas.light, canvas.camera, canvas.size
    rows = np.clip(np.arange(height, dtype=np.float32) / camera.horizon, 0, 1)[:, None, None]
    top, low = np.array(light.sky_top, np.float32), np.array(light.sky_low, np.float32)
    sky = top + (low - top) * rows**1.5 + np.zeros((1, width, 1), np.float32)
    clouds = np.clip(fractal(rng, (height, width), (7, 4), 5) * 0.55 + light.clouds - 0.25, 0, 1)[..., None]
    tone = np.array(mix((255, 255, 255), light.sky_low, 0.3 if light.name != "dusk" else 0.75), np.float32)
    sky += (tone - sky) * clouds * (0.75 if light.name != "overcast" else 0.45)
    if light.name in ("golden", "dusk", "morning"):
        columns, lines = np.arange(width)[None, :, None], np.arange(height)[:, None, None]
        far = (columns - camera.centre - light.sun_side * width * 0.12) ** 2 + (lines - camera.horizon * 0.92) ** 2
        strength = {"golden": 0.75, "dusk": 0.45, "morning": 0.5}[light.name]
        glow = np.exp(-far / (2 * (width * 0.16) ** 2)) * strength
        sky += (np.array((255, 226, 168), np.float32) - sky) * glow
    canvas.background(np.clip(sky, 0, 255).astype(np.uint8), canvas.add(SKY))
    skyline, edge = canvas.add(BUILDING), -40.0
    tone3 = light.shade(mix((150, 150, 160), light.haze, 0.35), 0.3, 110)
    while edge < width + 40:
        step, rise = width * float(rng.uniform(0.03, 0.08)), height * float(rng.uniform(0.04, 0.15))
        colour = scale(tone3, float(rng.uniform(0.94, 1.05)))
        corners = [(edge, camera.horizon + 4), (edge, camera.horizon - rise)]
        canvas.fill(
            [*corners, (edge + step, camera.horizon - rise), (edge + step, camera.horizon + 4)], colour, skyline
        )
        edge += step
    trees = canvas.add(TREE)
    for _ in range(int(rng.integers(0, 3)) * 14):
        u, reach = camera.centre + width * float(rng.normal(0, 0.12)), height * float(rng.uniform(0.012, 0.03))
        leaf = light.shade(scale((92, 124, 74), float(rng.uniform(0.85, 1.1))), 0.4, 70)
        canvas.disc((u, camera.horizon - reach * 0.6), (reach * 1.2, reach * 1.3), leaf, trees, corners=10)


def _draw_ground(canvas: Canvas, rng: np.random.Generator, street: Street) -> None:
    """Pavements, road, kerbs, lane marks, a zebra crossing at times, and the shadow of the houses."""
    light, asphalt = canvas.light, scale((112, 114, 120), float(rng.uniform(0.85, 1.05)))
    stone = mix((178, 170, 158), (160, 158, 160), float(rng.random()))
    pavements, road = (canvas.add(PAVEMENT), canvas.add(PAVEMENT)), canvas.add(ROAD)
    depths = [float(z) for z in np.geomspace(2.2, 240, 44)][::-1]
    sunlit = 0.75 if light.shadow > 0.2 else 0.5

    def band(
        left: float, right: float, near: float, far: float, colour: Colour, number: int | None, alpha: float = 1.0
    ) -> None:
        tone = light.shade(colour, sunlit, (near + far) / 2)
        canvas.fill3([(left, 0, near), (right, 0, near), (right, 0, far), (left, 0, far)], tone, number, alpha)

    for far, near in pairwise(depths):
        band(-60, street.left, near, far, stone, pavements[0])
        band(street.right, 60, near, far, stone, pavements[1])
        band(street.left, street.right, near, far, asphalt, road)
    for z in np.arange(3, 40, 1.6):
        for left, right in (
            (street.left - street.pavement, street.left),
            (street.right, street.right + street.pavement),
        ):
            band(left, right, float(z), float(z) + 0.07, scale(stone, 0.82), None)
    for side in (-1, 1):
        kerb = street.kerb(side)
        for far, near in pairwise(depths):
            band(
                min(kerb, kerb + side * 0.28),
                max(kerb, kerb + side * 0.28),
                near,
                far,
                scale(stone, 1.18),
                pavements[(side + 1) // 2],
            )
            band(min(kerb, kerb - side * 0.12), max(kerb, kerb - side * 0.12), near, far, scale(asphalt, 0.72), None)
    paint: Colour = (232, 232, 226)
    centre = (street.left + street.right) / 2
    start = float(rng.uniform(0, 3))
    for z in np.arange(start, 90, 5.0):
        band(centre - 0.09, centre + 0.09, float(z) + 2.0, float(z) + 4.4, paint, None)
    if rng.random() < 0.6:
        for side in (-1, 1):
            line = street.kerb(side) - side * 0.5
            band(line - 0.05, line + 0.05, 2.2, 120, paint, None, 0.8)
    zebra = float(rng.uniform(6.5, 12)) if rng.random() < 0.45 else None
    if zebra is not None:
        for x in np.arange(street.left + 0.5, street.right - 0.6, 1.0):
            band(float(x), float(x) + 0.55, zebra, zebra + 2.6, paint, None)
    for _ in range(int(rng.integers(0, 3))):
        place = (float(rng.uniform(street.left + 1, street.right - 1)), 0.0, float(rng.uniform(6, 18)))
        u, v = canvas.camera.project(place)
        wide = canvas.camera.pixels(0.34, place[2])
        tone = light.shade(scale(asphalt, 0.85), 0.4, place[2])
        canvas.disc((u, v), (wide, wide * canvas.camera.height / place[2]), tone)
    if light.shadow > 0.2:
        side = light.sun_side
        reach = street.kerb(side) - side * float(rng.uniform(0.6, 4.5))
        edge = side * (street.wall(side) + 3)
        canvas.fill3([(edge, 0, 2), (reach, 0, 2), (reach, 0, 120), (edge, 0, 120)], (26, 30, 58), alpha=light.shadow)


def _draw_row(canvas: Canvas, rng: np.random.Generator, street: Street, side: int) -> None:
    """One side of the street from far to near: houses, and gaps with a fence, a hedge and trees."""
    plan: list[tuple[float, float, House | None]] = []
    z = float(rng.uniform(3, 7))
    while z < 95:
        if rng.random() < 0.7:
            house = plan_house(rng, side, street.wall(side), z)
            plan.append((house.near, house.far, house))
            z = house.far + (0.0 if rng.random() < 0.6 else float(rng.uniform(0.5, 2)))
        else:
            far = z + float(rng.uniform(6, 12))
            plan.append((z, far, None))
            z = far
    for near, far, planned in reversed(plan):
        if planned is not None:
            draw_house(canvas, rng, planned)
            continue
        line = side * street.wall(side)
        for depth in np.arange(far, near, -4.0):
            away = line + side * float(rng.uniform(2, 5))
            draw_tree(canvas, rng, away, float(depth), float(rng.uniform(5, 9)))
        draw_hedge(canvas, rng, line + side * 0.9, near, far, float(rng.uniform(1.6, 2.3)))
        draw_fence(canvas, rng, line, near, far)


def _draw_traffic(canvas: Canvas, rng: np.random.Generator, street: Street) -> None:
    """What stands on the pavements and moves on the road, from far to near."""
    things: list[Thing] = []
    for side in (-1, 1):
        things += _plan_kerb(canvas, rng, street, side)
        things += _plan_people(canvas, rng, street, side)
        things += _plan_cars(canvas, rng, street, side)
        if rng.random() < 0.3:
            near, edge = float(rng.uniform(8, 16)), street.kerb(side) + side * 0.35
            things.append((near + 2, partial(draw_fence, canvas, rng, edge, near, near + 5.0)))
    if rng.random() < 0.4:
        x, z = float(rng.uniform(street.left + 1, street.right - 1)), float(rng.uniform(9, 16))
        things.append((z, partial(draw_person, canvas, rng, x, z)))
    for _, draw in sorted(things, key=lambda thing: -thing[0]):
        draw()


def _plan_kerb(canvas: Canvas, rng: np.random.Generator, street: Street, side: int) -> list[Thing]:
    """Signs, traffic lights, lamps, trees and bollards along one kerb; signs and lights only where they can be told."""
    things: list[Thing] = []
    z = float(rng.uniform(7, 11))
    while z < 45:
        x = street.kerb(side) + side * float(rng.uniform(0.55, 0.9))
        kind = str(rng.choice(["sign", "light", "lamp", "tree", "bollards"], p=[0.27, 0.2, 0.2, 0.23, 0.1]))
        if kind == "sign" and z < 26:
            things.append((z, partial(draw_sign, canvas, rng, x, z)))
        elif kind == "light" and z < 26:
            things.append((z, partial(draw_traffic_light, canvas, rng, x, z)))
        elif kind == "lamp":
            things.append((z, partial(draw_street_lamp, canvas, x, z)))
        elif kind == "tree":
            height = float(rng.uniform(4.5, 7.5))
            things.append((z, partial(draw_tree, canvas, rng, x + side * 0.5, z, height)))
        elif kind == "bollards" and z < 30:
            depths = [z + step for step in range(int(rng.integers(2, 5)))]
            things += [(at, partial(draw_post, canvas, x, at, 1.05, 0.16, (88, 60, 52))) for at in depths]
        z += float(rng.uniform(2.6, 5.5)) * (1 + z / 25)
    return things


def _plan_people(canvas: Canvas, rng: np.random.Generator, street: Street, side: int) -> list[Thing]:
    """People on one pavement."""
    things: list[Thing] = []
    for _ in range(int(rng.integers(1, 4))):
        z = float(rng.uniform(6.5, 22))
        x = side * float(rng.uniform(abs(street.kerb(side)) + 1.1, street.wall(side) - 0.7))
        things.append((z, partial(draw_person, canvas, rng, x, z)))
    return things


def _plan_cars(canvas: Canvas, rng: np.random.Generator, street: Street, side: int) -> list[Thing]:
    """Cars in one half of the road: parked along the kerb or driving in the lane; those at the left come towards us."""
    things: list[Thing] = []
    parked = bool(rng.random() < 0.55)
    if not parked and rng.random() < 0.25:
        return things
    kerb = street.kerb(side)
    x = kerb - side * 1.15 if parked else (kerb + (street.left + street.right) / 2) / 2
    z = float(rng.uniform(6, 12)) if parked else float(rng.uniform(8, 20))
    while z < 45:
        things.append((z, partial(draw_car, canvas, rng, x, z, side < 0)))
        z += float(rng.uniform(5.6, 13)) * (1 + z / 60) if parked else float(rng.uniform(9, 26))
    return things


def _photograph(rng: np.random.Generator, seen: NDArray[np.float32], truth: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Give surfaces their grain, the lens its dark corners, the sensor its noise."""
    size = truth.shape[0], truth.shape[1]
    grain = np.array([0.3, 2.4, 2.0, 3.0, 3.0, 6.5, 1.2, 1.2, 3.0, 1.6, 2.0], np.float32)[truth]
    patches = np.array([0, 2.0, 0, 3.2, 2.8, 4.5, 0, 0, 1.5, 0, 0], np.float32)[truth]
    fine, coarse = fractal(rng, size, (size[0] // 2, size[1] // 2), 2), fractal(rng, size, (24, 20), 3)
    level = seen.mean(axis=2, keepdims=True) / 128
    image = seen + ((fine * grain + coarse * patches)[..., None]) * np.clip(level, 0.25, 1.2)
    rows, columns = np.ogrid[-1 : 1 : size[0] * 1j, -1 : 1 : size[1] * 1j]
    image *= (1.02 - 0.1 * (rows**2 * 0.6 + columns**2 * 0.7))[..., None].astype(np.float32)
    image += (image - image.mean(axis=2, keepdims=True)) * float(rng.uniform(0.04, 0.22))
    image = (image - 128) * float(rng.uniform(1.0, 1.08)) + 128 + float(rng.uniform(-4, 5))
    if rng.random() < 0.3:
        image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.3, 0.55)))
    image += rng.standard_normal((*size, 3)).astype(np.float32) * float(rng.uniform(0.8, 3.2))
    return np.asarray(np.clip(image, 0, 255), np.uint8)
