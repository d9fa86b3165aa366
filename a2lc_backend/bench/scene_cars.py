"""The cars of a drawn street scene: an outline from the side, drawn out to the width of a car."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from a2lc_backend.bench.scene_canvas import CAR, Canvas, Colour, Point, Point3, scale

CAR_PAINTS: tuple[Colour, ...] = (
    (178, 38, 42),
    (36, 70, 132),
    (226, 228, 230),
    (44, 46, 52),
    (142, 148, 156),
    (214, 164, 48),
    (60, 110, 96),
    (96, 128, 158),
)

# Outline of a car from the side, (metres ahead of its tail, metres up), and which edges are glass.
HATCHBACK = ((0.0, 0.32), (0.0, 0.92), (0.12, 1.0), (0.62, 1.46), (2.2, 1.48), (3.0, 1.0), (4.0, 0.86), (4.15, 0.32))
SEDAN = ((0.0, 0.32), (0.0, 0.94), (0.75, 1.0), (1.25, 1.42), (2.6, 1.44), (3.4, 0.98), (4.4, 0.84), (4.55, 0.32))
VAN = ((0.0, 0.34), (0.0, 1.12), (0.06, 1.25), (0.14, 2.0), (3.3, 2.02), (4.2, 1.22), (4.8, 1.0), (4.9, 0.34))


def draw_car(canvas: Canvas, rng: np.random.Generator, x: float, z: float, oncoming: bool) -> None:
    """Paint a car whose near end is at depth z: its outline from the side, drawn out to the width of a car."""
    number = canvas.add(CAR)
    light = canvas.light
    outline = (HATCHBACK, SEDAN, VAN)[rng.choice(3, p=[0.45, 0.38, 0.17])]
    paint = CAR_PAINTS[rng.integers(len(CAR_PAINTS))]
    length = outline[-1][0]
    half = 0.88 if outline is not VAN else 0.98
    belt, roof = outline[2][1], outline[4][1]

    def corner(index: int, side: float) -> Point3:
        a, y = outline[index]
        lean = 0.16 * max(0.0, (y - belt) / (roof - belt))
        return x + side * (half - lean), y, z + (length - a if oncoming else a)

    ground: list[Point3] = [
        (x - half - 0.1, 0, z - 0.1),
        (x + half + 0.1, 0, z - 0.1),
        (x + half + 0.1, 0, z + length),
        (x - half - 0.1, 0, z + length),
    ]
    canvas.fill3(ground, (14, 16, 24), alpha=0.55)
    for side in (-1.0, 1.0):
        for axle in (0.8, length - 0.85):
            _draw_wheel(canvas, (x + side * (half - 0.12), z + axle), number, 0.24, filled=False)
    side = -1.0 if x > 0 else 1.0
    facing = light.on_side(side)
    canvas.fill3([corner(i, side) for i in range(8)], light.shade(scale(paint, 0.9), 0.75 * facing, z + 2), number)
    edges = [(i, i + 1) for i in range(7)]
    for i, j in sorted(edges, key=lambda edge: -(corner(edge[0], 0)[2] + corner(edge[1], 0)[2])):
        face = [corner(i, -1.0), corner(i, 1.0), corner(j, 1.0), corner(j, -1.0)]
        if _turned_away([canvas.camera.project(point) for point in face], oncoming):
            continue
        glass = i in (2, 4)
        upward = 1.0 if abs(outline[j][1] - outline[i][1]) < abs(outline[j][0] - outline[i][0]) else 0.35
        canvas.fill3(face, light.shade(paint, upward, z), number)
        if glass:
            pane = _inset([canvas.camera.project(point) for point in face], 0.86)
            canvas.fill(pane, light.shade((38, 48, 62), 0.3, z))
            canvas.fill(
                [pane[0], _between(pane[0], pane[1], 0.4), _between(pane[3], pane[2], 0.25), pane[3]],
                light.sky_low,
                alpha=0.22,
            )
    _draw_side_windows(canvas, outline, [corner(i, side) for i in range(8)], light.shade((40, 50, 64), 0.3 * facing, z))
    for axle in (0.8, length - 0.85):
        _draw_wheel(canvas, (x + side * half, z + axle), number, 0.33, filled=True)
    _draw_car_end(canvas, (x, z), half, belt, oncoming)


def _draw_wheel(canvas: Canvas, place: Point, number: int, radius: float, filled: bool) -> None:
    angles = np.linspace(0, 2 * np.pi, 15)[:-1]
    rim = [(place[0], 0.33 + radius * float(np.sin(a)), place[1] + radius * float(np.cos(a))) for a in angles]
    canvas.fill3(rim, (24, 24, 28), number)
    if filled:
        hub = [(place[0], 0.33 + 0.16 * float(np.sin(a)), place[1] + 0.16 * float(np.cos(a))) for a in angles]
        canvas.fill3(hub, canvas.light.shade((168, 172, 178), 0.4, place[1]))


def _draw_side_windows(canvas: Canvas, outline: Sequence[Point], side: Sequence[Point3], colour: Colour) -> None:
    """Two panes between the belt and the roof line."""
    low_back, high_back, high_front, low_front = (side[i] for i in (2, 3, 4, 5))
    frame = _inset([canvas.camera.project(p) for p in (low_back, high_back, high_front, low_front)], 0.84)
    a, b, c, d = frame
    split = 0.42 if outline is not VAN else 0.62
    canvas.fill([a, b, _between(b, c, split), _between(a, d, split)], colour)
    canvas.fill([_between(a, d, split + 0.05), _between(b, c, split + 0.07), c, d], colour)


def _draw_car_end(canvas: Canvas, place: Point, half: float, belt: float, oncoming: bool) -> None:
    """Lamps, bumper and number plate at the near end."""
    (x, z), light = place, canvas.light

    def board(left: float, right: float, low: float, high: float, colour: Colour) -> None:
        z_near = z - 0.01
        canvas.fill3(
            [(x + left, low, z_near), (x + right, low, z_near), (x + right, high, z_near), (x + left, high, z_near)],
            colour,
        )

    board(-half, half, 0.32, 0.5, light.shade((44, 46, 52), 0.3, z))
    if oncoming:
        board(-half * 0.6, half * 0.6, 0.62, 0.76, light.shade((40, 42, 48), 0.3, z))
    board(-0.27, 0.27, 0.5, 0.62, light.shade((232, 232, 222), 0.3, z))
    lamp = (255, 244, 214) if oncoming else (214, 32, 38)
    for side in (-1, 1):
        edges = sorted((side * half * 0.96, side * half * 0.66))
        low, high = (0.6, 0.78) if oncoming else (belt - 0.3, belt - 0.08)
        board(edges[0], edges[1], low, high, lamp if light.lamps else light.shade(lamp, 0.5, z))
        if light.lamps:
            centre = canvas.camera.project((x + side * half * 0.8, (low + high) / 2, z))
            canvas.glow(centre, canvas.camera.pixels(0.35, z), (120, 110, 84) if oncoming else (110, 12, 14))


def _between(one: Point, other: Point, share: float) -> Point:
    """A point on the way between two."""
    return one[0] + (other[0] - one[0]) * share, one[1] + (other[1] - one[1]) * share


def _inset(points: Sequence[Point], share: float) -> list[Point]:
    """Shrink a polygon towards its middle."""
    centre = (sum(p[0] for p in points) / len(points), sum(p[1] for p in points) / len(points))
    return [_between(centre, point, share) for point in points]


def _turned_away(points: Sequence[Point], mirrored: bool) -> bool:
    """Whether a face of the car looks away from the camera, by the order of its corners in the image."""
    area = sum(a[0] * b[1] - b[0] * a[1] for a, b in zip(points, [*points[1:], points[0]], strict=True))
    return area < 0 if mirrored else area > 0
