"""What stands and moves in a drawn street scene: trees, fences, poles, signs, traffic lights, people."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from a2lc_backend.bench.scene_canvas import (
    FENCE,
    LIGHT,
    PEDESTRIAN,
    POLE,
    SIGN,
    TREE,
    Canvas,
    Colour,
    Point,
    Point3,
    mix,
    scale,
)

LEAVES: tuple[Colour, ...] = ((84, 132, 58), (66, 112, 62), (112, 142, 60), (92, 120, 72), (168, 134, 52), (58, 98, 66))
CLOTHES: tuple[Colour, ...] = (
    (176, 52, 58),
    (44, 62, 104),
    (222, 188, 84),
    (70, 120, 110),
    (52, 52, 60),
    (206, 206, 200),
    (134, 80, 120),
    (92, 112, 150),
)
SKINS: tuple[Colour, ...] = ((234, 194, 166), (198, 150, 118), (140, 98, 74), (96, 66, 52))
METAL: Colour = (104, 110, 116)
SIGN_RED: Colour = (206, 38, 44)
SIGN_BLUE: Colour = (30, 88, 176)
SIGN_GREEN: Colour = (24, 112, 76)
SIGN_YELLOW: Colour = (240, 190, 40)
WHITE: Colour = (244, 244, 240)
LAMPS: tuple[Colour, ...] = ((255, 64, 52), (255, 190, 50), (70, 230, 120))


def draw_tree(canvas: Canvas, rng: np.random.Generator, x: float, z: float, height: float) -> None:
    """Paint a tree: a trunk and a crown of leaves, brighter towards the light."""
    number = canvas.add(TREE)
    light, camera = canvas.light, canvas.camera
    leaf = scale(LEAVES[rng.integers(len(LEAVES))], float(rng.uniform(0.85, 1.1)))
    kind = rng.choice(["round", "round", "tall", "fir"])
    if kind == "fir" and leaf[0] > leaf[1]:
        leaf = LEAVES[-1]  # a fir does not turn yellow in autumn
    trunk = light.shade((98, 76, 58), 0.3, z)
    width = 0.035 * height
    crown_low = height * (0.34 if kind == "round" else 0.2)
    u, v = camera.project((x - 0.05 * height * light.sun_side, 0, z))
    spread = camera.pixels(0.26 * height, z)
    canvas.disc((u, v), (spread, spread * 0.5 * camera.height / z), (18, 22, 40), alpha=0.12 + 0.5 * light.shadow)
    canvas.fill3(
        [
            (x - width, 0, z),
            (x + width, 0, z),
            (x + width * 0.6, crown_low + 0.6, z),
            (x - width * 0.6, crown_low + 0.6, z),
        ],
        trunk,
        number,
    )
    if kind == "fir":
        for layer in range(5):
            low = crown_low + (height - crown_low) * layer / 5.5
            half = height * 0.23 * (1 - layer / 6)
            tip = (x, low + height * 0.32, z)
            dark = light.shade(scale(leaf, 0.6 + 0.05 * layer), 0.2, z)
            bright = light.shade(scale(leaf, 0.72 + 0.05 * layer), 0.8, z)
            canvas.fill3([(x - half, low, z), (x + half, low, z), tip], dark, number)
            edge = x + half * light.sun_side
            canvas.fill3([(x + 0.1 * half * light.sun_side, low, z), (edge, low, z), tip], bright)
        return
    half_width = height * (0.3 if kind == "round" else 0.15)
    half_height = (height - crown_low) / 2
    middle = crown_low + half_height
    core = camera.project((x, middle, z))
    reach = (camera.pixels(half_width * 0.75, z), camera.pixels(half_height * 0.75, z))
    canvas.disc(core, reach, light.shade(scale(leaf, 0.72), 0.3, z), number)
    blobs = 46
    angle, radius = rng.uniform(0, 2 * np.pi, blobs), np.sqrt(rng.uniform(0, 1, blobs))
    across, up = np.cos(angle) * radius, np.sin(angle) * radius
    brightness = 0.55 * up + 0.35 * across * light.sun_side
    for index in np.argsort(brightness):
        u, v = camera.project(
            (x + float(across[index]) * half_width * 0.8, middle + float(up[index]) * half_height * 0.8, z)
        )
        tone = 0.78 + 0.26 * float(brightness[index]) + float(rng.uniform(-0.06, 0.06))
        size = camera.pixels(half_width, z) * float(rng.uniform(0.22, 0.36))
        facing = min(max(0.45 + float(brightness[index]) * 0.8, 0.0), 1.0)
        canvas.disc((u, v), (size, size * 0.86), light.shade(scale(leaf, tone), facing, z), number, corners=11)


def draw_hedge(canvas: Canvas, rng: np.random.Generator, x: float, near: float, far: float, height: float) -> None:
    """Paint a hedge along the street."""
    number = canvas.add(TREE)
    light = canvas.light
    leaf = scale(LEAVES[rng.integers(3)], 0.8)
    facing = light.on_side(-np.sign(x))
    away = float(np.sign(x))
    canvas.fill3(
        [(x, 0, near), (x + away * 14, 0, near), (x + away * 14, height, near), (x, height, near)],
        light.shade(leaf, 0.2, near),
        number,
    )
    canvas.fill3(
        [(x, 0, near), (x, 0, far), (x, height, far), (x, height, near)],
        light.shade(scale(leaf, 0.9), facing, (near + far) / 2),
        number,
    )
    for z in np.arange(far, near, -0.45):
        for y in (0.45, 0.75, 1.0):
            u, v = canvas.camera.project((x, height * y + float(rng.uniform(-0.2, 0.12)), float(z)))
            size = canvas.camera.pixels(0.32, float(z))
            tone = light.shade(scale(leaf, 0.6 + 0.4 * y + float(rng.uniform(-0.1, 0.1))), facing, float(z))
            canvas.disc((u, v), (size, size), tone, number, corners=9)


def draw_fence(canvas: Canvas, rng: np.random.Generator, x: float, near: float, far: float) -> None:
    """Paint a fence along the street: iron railings that let the background through, or planks."""
    number = canvas.add(FENCE)
    light = canvas.light
    height = float(rng.uniform(1.15, 1.5))
    facing = light.on_side(-np.sign(x))
    whole: list[Point3] = [(x, 0, near), (x, 0, far), (x, height, far), (x, height, near)]
    if rng.random() < 0.45:
        wood = mix((158, 116, 78), (196, 186, 168), float(rng.uniform(0, 1)))
        canvas.fill3(whole, light.shade(scale(wood, 0.6), facing, (near + far) / 2), number)
        for z in np.arange(near, far - 0.3, 0.42)[::-1]:
            tone = light.shade(scale(wood, float(rng.uniform(0.86, 1.08))), facing, float(z))
            canvas.fill3([(x, 0, z), (x, 0, z + 0.34), (x, height, z + 0.34), (x, height, z)], tone)
        return
    iron = mix((40, 44, 48), (66, 84, 80), float(rng.random()))
    canvas.fill3(whole, light.shade(scale(iron, 0.9), 0, near), number, alpha=0.3)
    bars: list[tuple[float, float, float, float]] = [(0.1, 0.22, near, far), (height - 0.2, height - 0.06, near, far)]
    bars += [(0.0, height, float(z), float(z) + 0.1) for z in np.arange(near, far, 0.45)]
    for low, high, start, end in bars:
        tone = light.shade(iron, 0.5 * facing, (start + end) / 2)
        canvas.fill3([(x, low, start), (x, low, end), (x, high, end), (x, high, start)], tone)


def draw_post(canvas: Canvas, x: float, z: float, height: float, width: float, colour: Colour = METAL) -> None:
    """Paint an upright pole; the side towards the sun is brighter."""
    number = canvas.add(POLE)
    light = canvas.light
    base, top = canvas.camera.project((x, 0, z)), canvas.camera.project((x, height, z))
    half = max(canvas.camera.pixels(width, z) / 2, 0.75)
    canvas.fill(_upright(base[0], base[1], top[1], half), light.shade(colour, 0.25, z), number)
    canvas.fill(
        _upright(base[0] + half * 0.55 * light.sun_side, base[1], top[1], half * 0.45), light.shade(colour, 1, z)
    )
    canvas.fill(
        _upright(base[0], base[1], base[1] - canvas.camera.pixels(0.5, z), half * 1.5),
        light.shade(scale(colour, 0.7), 0.2, z),
        number,
    )


def draw_street_lamp(canvas: Canvas, x: float, z: float) -> None:
    """Paint a tall lamp whose arm reaches over the road."""
    draw_post(canvas, x, z, 6.2, 0.2)
    number = len(canvas.objects) - 1
    tone = canvas.light.shade(METAL, 0.4, z)
    arm = -float(np.sign(x)) * 1.6
    canvas.fill3([(x, 6.0, z), (x + arm, 6.45, z), (x + arm, 6.62, z), (x, 6.25, z)], tone, number)
    head = [(x + arm * 0.8, 6.35, z), (x + arm * 1.3, 6.4, z), (x + arm * 1.25, 6.68, z), (x + arm * 0.8, 6.65, z)]
    canvas.fill3(head, tone, number)
    if canvas.light.lamps:
        lamp = canvas.camera.project((x + arm * 1.05, 6.33, z))
        size = canvas.camera.pixels(0.3, z)
        canvas.disc(lamp, (size, size * 0.5), (255, 232, 178))
        canvas.glow(lamp, size * 5, (86, 62, 26))


def draw_sign(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """Paint a traffic sign on its pole: a disc, a triangle, a diamond, a square, or an upright board."""
    centre = float(rng.uniform(2.35, 2.8))
    draw_post(canvas, x, z, centre + 0.2, 0.13)
    number = canvas.add(SIGN)
    light = canvas.light
    u, v = canvas.camera.project((x, centre, z))
    size = max(canvas.camera.pixels(0.52, z), 3.2)

    def tone(colour: Colour) -> Colour:
        return light.shade(scale(colour, 1.06), 0.55, z * 0.4)

    kind = rng.choice(["limit", "blue", "triangle", "stop", "diamond", "square", "board", "board"])
    if kind in ("limit", "blue"):
        canvas.disc((u, v), (size, size), tone(SIGN_RED if kind == "limit" else WHITE), number)
        canvas.disc(
            (u, v),
            (size * 0.72, size * 0.72) if kind == "limit" else (size * 0.9, size * 0.9),
            tone(WHITE if kind == "limit" else SIGN_BLUE),
        )
        mark = tone((40, 40, 46) if kind == "limit" else WHITE)
        canvas.fill(_box(u - size * 0.22, v, size * 0.14, size * 0.34), mark)
        canvas.fill(_box(u + size * 0.24, v, size * 0.16, size * 0.34), mark)
    elif kind == "triangle":
        canvas.fill(
            [(u, v - size * 1.15), (u + size * 1.1, v + size * 0.8), (u - size * 1.1, v + size * 0.8)],
            tone(SIGN_RED),
            number,
        )
        canvas.fill(
            [(u, v - size * 0.62), (u + size * 0.68, v + size * 0.56), (u - size * 0.68, v + size * 0.56)], tone(WHITE)
        )
        canvas.fill(_box(u, v + size * 0.12, size * 0.11, size * 0.34), tone((36, 36, 40)))
    elif kind == "stop":
        canvas.disc((u, v), (size * 1.05, size * 1.05), tone(WHITE), number, corners=8)
        canvas.disc((u, v), (size * 0.92, size * 0.92), tone(SIGN_RED), corners=8)
        canvas.fill(_box(u, v, size * 0.62, size * 0.18), tone(WHITE))
    elif kind == "diamond":
        for part, colour in ((1.15, WHITE), (0.95, SIGN_YELLOW)):
            reach = size * part
            canvas.fill([(u, v - reach), (u + reach, v), (u, v + reach), (u - reach, v)], tone(colour), number)
        canvas.fill(_box(u, v, size * 0.16, size * 0.4), tone((40, 38, 34)))
    else:
        tall = 1.0 if kind == "square" else 1.55
        wide = 0.9 if kind == "square" else 0.62
        colour = (SIGN_BLUE, SIGN_GREEN, SIGN_RED)[rng.integers(2 if kind == "square" else 3)]
        canvas.fill(_box(u, v, size * wide, size * tall), tone(WHITE), number)
        canvas.fill(_box(u, v, size * (wide - 0.1), size * (tall - 0.1)), tone(colour))
        for row in (-0.5, 0.0, 0.5):
            canvas.fill(_box(u, v + size * tall * row, size * wide * 0.5, size * 0.12), tone(WHITE))


def draw_traffic_light(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """Paint a traffic light on its pole: a dark box with a red, a yellow and a green lamp, one of them lit."""
    centre = float(rng.uniform(2.5, 2.9))
    draw_post(canvas, x, z, centre, 0.15, (84, 88, 92))
    number = canvas.add(LIGHT)
    u, v = canvas.camera.project((x, centre, z))
    size = max(canvas.camera.pixels(0.52, z), 3.2)
    light = canvas.light
    if rng.random() < 0.35:
        canvas.fill(_box(u, v, size * 0.84, size * 1.62), light.shade(WHITE, 0.4, z * 0.4), number)
    canvas.fill(_box(u, v, size * 0.68, size * 1.48), light.shade((38, 42, 44), 0.4, z * 0.4), number)
    lit = int(rng.choice([0, 0, 1, 2, 2]))
    for index, lamp in enumerate(LAMPS):
        place = (u, v + size * 0.92 * (index - 1))
        shown = lamp if index == lit else light.shade(mix(scale(lamp, 0.4), (36, 36, 36), 0.3), 0.4, z * 0.4)
        canvas.disc(place, (size * 0.4, size * 0.4), shown, corners=14)
        if index == lit:
            canvas.disc(place, (size * 0.2, size * 0.2), mix(lamp, (255, 255, 240), 0.55), corners=12)
            canvas.glow(place, size * (1.3 if light.lamps else 0.75), scale(lamp, 0.3 if light.lamps else 0.14))


def draw_person(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """Paint a person who stands or walks."""
    number = canvas.add(PEDESTRIAN)
    light = canvas.light
    u, ground = canvas.camera.project((x, 0, z))
    size = canvas.camera.pixels(1.75 * float(rng.uniform(0.9, 1.05)), z)
    top, below = (CLOTHES[i] for i in rng.choice(len(CLOTHES), 2, replace=False))
    skin = SKINS[rng.integers(len(SKINS))]
    stride = float(rng.uniform(0.03, 0.16)) * rng.choice([-1, 1])

    def part(points: Sequence[Point], colour: Colour, facing: float = 0.55) -> None:
        canvas.fill([(u + a * size, ground - b * size) for a, b in points], light.shade(colour, facing, z), number)

    canvas.disc((u + 0.06 * size, ground), (size * 0.24, size * 0.045), (20, 22, 34), alpha=0.3)
    dark = scale(mix(below, (60, 60, 72), 0.5), 0.75)
    part([(-0.07, 0.5), (0.03, 0.5), (stride + 0.04, 0.0), (stride - 0.05, 0.0)], scale(dark, 0.85))
    part([(-0.04, 0.5), (0.08, 0.5), (-stride + 0.05, 0.0), (-stride - 0.04, 0.0)], dark)
    if rng.random() < 0.35:
        part([(-0.11, 0.55), (0.11, 0.55), (0.16, 0.26), (-0.16, 0.26)], below)
    part([(-0.15, 0.8), (-0.1, 0.8), (-0.13 - stride * 0.5, 0.46), (-0.18 - stride * 0.5, 0.46)], scale(top, 0.8))
    part([(0.1, 0.8), (0.15, 0.8), (0.18 + stride * 0.5, 0.46), (0.13 + stride * 0.5, 0.46)], scale(top, 0.9))
    part([(-0.14, 0.82), (-0.07, 0.86), (0.07, 0.86), (0.14, 0.82), (0.11, 0.47), (-0.11, 0.47)], top)
    part(
        [(0.02 * light.sun_side, 0.84), (0.12 * light.sun_side, 0.82), (0.1 * light.sun_side, 0.5)],
        scale(top, 1.12),
        0.9,
    )
    if rng.random() < 0.35:
        part([(-0.1, 0.79), (0.1, 0.79), (0.09, 0.58), (-0.09, 0.58)], CLOTHES[rng.integers(len(CLOTHES))])
    head = (u, ground - 0.92 * size)
    canvas.disc(head, (size * 0.062, size * 0.078), light.shade(skin, 0.7, z), number, corners=14)
    hair = light.shade(((48, 36, 30), (112, 76, 44), (30, 30, 34), (176, 140, 84))[rng.integers(4)], 0.5, z)
    canvas.disc((head[0], head[1] - size * 0.03), (size * 0.066, size * 0.055), hair, number, corners=14)


def _upright(x: float, low: float, high: float, half: float) -> list[Point]:
    return [(x - half, low), (x + half, low), (x + half * 0.8, high), (x - half * 0.8, high)]


def _box(x: float, y: float, half_width: float, half_height: float) -> list[Point]:
    return [
        (x - half_width, y - half_height),
        (x + half_width, y - half_height),
        (x + half_width, y + half_height),
        (x - half_width, y + half_height),
    ]
