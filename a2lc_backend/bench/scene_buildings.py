"""The houses of a drawn street scene: walls with windows, shops with awnings, roofs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from a2lc_backend.bench.scene_canvas import BUILDING, Canvas, Colour, Point3, mix, scale

WALLS: tuple[Colour, ...] = (
    (214, 178, 142),
    (226, 206, 172),
    (188, 116, 92),
    (164, 92, 78),
    (204, 198, 186),
    (176, 186, 190),
    (222, 190, 122),
    (198, 142, 120),
    (150, 168, 178),
    (210, 164, 152),
    (172, 178, 150),
    (238, 226, 206),
)
ROOFS: tuple[Colour, ...] = ((108, 74, 66), (86, 88, 98), (128, 80, 64), (72, 76, 84))
SHOPS: tuple[Colour, ...] = ((58, 86, 84), (104, 52, 54), (52, 62, 92), (84, 76, 60), (44, 50, 54), (120, 92, 54))
AWNINGS: tuple[Colour, ...] = ((190, 58, 56), (52, 112, 92), (44, 84, 140), (214, 150, 52))


@dataclass(frozen=True)
class House:
    """A house beside the street.

    Attributes:
        side: −1 at the left of the street, 1 at the right.
        wall: metres from the middle of the street to the wall.
        near: metres from the camera to its near end.
        far: metres to its far end.
        storeys: floors above the ground floor.
        modern: whether it has bands of glass instead of single windows.
        shop: whether its ground floor is a shop.
        colour: of its walls.
        roof: of its roof; None for a flat one.
        accent: of its shop or door.
    """

    side: int
    wall: float
    near: float
    far: float
    storeys: int
    modern: bool
    shop: bool
    colour: Colour
    roof: Colour | None
    accent: Colour

    @property
    def height(self) -> float:
        """Metres from the ground to the eaves."""
        return 3.8 + 3.0 * self.storeys


@dataclass(frozen=True)
class Face:
    """One wall of a house: metres along it become points of the street, and its colours get their light."""

    canvas: Canvas
    start: Point3
    along: tuple[float, float]
    width: float
    facing: float

    def corners(self, left: float, right: float, low: float, high: float, out: float = 0.0) -> list[Point3]:
        """A rectangle on the wall, in metres along it and up; `out` metres in front of it (street walls only)."""
        x, _, z = self.start
        across, ahead = self.along
        return [
            (x + across * a + out, y, z + ahead * a)
            for a, y in ((left, low), (right, low), (right, high), (left, high))
        ]

    def panel(
        self,
        left: float,
        right: float,
        low: float,
        high: float,
        colour: Colour,
        number: int | None = None,
        alpha: float = 1.0,
        raw: bool = False,
    ) -> None:
        """Paint a rectangle of the wall; `raw` colours (lit glass) get no sunlight."""
        depth = self.start[2] + self.along[1] * (left + right) / 2
        light = self.canvas.light
        seen = mix(colour, light.haze, 1 - float(np.exp(-depth / light.haze_depth))) if raw else None
        self.canvas.fill3(
            self.corners(left, right, low, high), seen or light.shade(colour, self.facing, depth), number, alpha
        )


def plan_house(rng: np.random.Generator, side: int, wall: float, near: float) -> House:
    """Think of a house that starts at a depth."""
    modern = bool(rng.random() < 0.22)
    colour = WALLS[rng.integers(len(WALLS))]
    if modern:
        colour = mix(colour, (176, 184, 192), 0.6)
    return House(
        side=side,
        wall=wall + float(rng.uniform(-0.3, 0.3)),
        near=near,
        far=near + float(rng.uniform(8, 17)),
        storeys=int(rng.integers(1, 4)) + (1 if modern else 0),
        modern=modern,
        shop=bool(rng.random() < 0.5),
        colour=scale(colour, float(rng.uniform(0.86, 1.05))),
        roof=None if modern or rng.random() < 0.3 else ROOFS[rng.integers(len(ROOFS))],
        accent=SHOPS[rng.integers(len(SHOPS))],
    )


def draw_house(canvas: Canvas, rng: np.random.Generator, house: House) -> None:
    """Paint a house: its near end, its street wall, its roof."""
    number = canvas.add(BUILDING)
    side, x = house.side, house.wall * house.side
    light = canvas.light
    depth_back = 9.0
    end = Face(canvas, (x, 0.0, house.near), (float(side), 0.0), depth_back, 0.35 if light.shadow > 0.2 else 0.0)
    street = Face(canvas, (x, 0.0, house.near), (0.0, 1.0), house.far - house.near, light.on_side(-side))
    for face in (end, street):
        face.panel(0, face.width, 0, house.height, house.colour, number)
        _draw_storeys(rng, house, face)
        face.panel(0, face.width, 0, 0.7, scale(house.colour, 0.62), alpha=0.6)
        face.panel(
            0, face.width, house.height - 0.45, house.height + 0.15, mix(house.colour, (250, 246, 238), 0.35), number
        )
    _draw_street_floor(rng, house, street)
    if house.roof is not None:
        _draw_roof(canvas, rng, house, number)


def _glass(canvas: Canvas, rng: np.random.Generator) -> tuple[Colour, bool]:
    """The colour of one window pane, and whether a lamp burns behind it."""
    if rng.random() < canvas.light.lit_windows:
        return mix((255, 208, 128), (255, 236, 190), float(rng.random())), True
    reflection = mix((46, 58, 76), canvas.light.sky_low, float(rng.uniform(0.08, 0.42)))
    return reflection, False


def _draw_storeys(rng: np.random.Generator, house: House, face: Face) -> None:
    canvas = face.canvas
    spacing = float(rng.uniform(2.3, 3.0))
    count = max(1, int((face.width - 0.6) / spacing))
    margin = (face.width - count * spacing) / 2
    frame = mix(house.colour, (248, 246, 240), 0.7)
    for storey in range(house.storeys):
        low = 3.8 + 3.0 * storey + 0.7
        if house.modern:
            face.panel(0.3, face.width - 0.3, low, low + 1.6, scale(house.colour, 0.6))
        for column in range(count):
            left = margin + column * spacing + (0.1 if house.modern else spacing * 0.25)
            right = margin + (column + 1) * spacing - (0.1 if house.modern else spacing * 0.25)
            depth = face.start[2] + face.along[1] * left
            if canvas.camera.pixels(right - left, depth) < 1.5:
                continue
            glass, lit = _glass(canvas, rng)
            if not house.modern:
                face.panel(left - 0.14, right + 0.14, low - 0.14, low + 1.8, frame)
            face.panel(left, right, low, low + 1.6, glass, raw=lit)
            if not lit:
                face.panel(left, right, low + 0.9, low + 1.6, scale(glass, 0.78))
            if not house.modern and canvas.camera.pixels(1, depth) > 9:
                middle = (left + right) / 2
                face.panel(middle - 0.05, middle + 0.05, low, low + 1.6, frame)
                face.panel(left - 0.25, right + 0.25, low - 0.32, low - 0.14, scale(frame, 0.82))


def _draw_street_floor(rng: np.random.Generator, house: House, street: Face) -> None:
    """The ground floor towards the street: a shop front, or a door between windows."""
    canvas, width = street.canvas, street.width
    if not house.shop:
        door = float(rng.uniform(0.2, 0.7)) * width
        street.panel(door - 0.2, door + 1.3, 0, 2.8, mix(house.colour, (248, 246, 240), 0.6))
        street.panel(door, door + 1.1, 0, 2.5, house.accent)
        for left in np.arange(0.8, width - 1.6, 2.9).tolist():
            if abs(left + 0.7 - door - 0.5) > 1.7:
                glass, lit = _glass(canvas, rng)
                street.panel(left - 0.12, left + 1.52, 1.1, 2.95, mix(house.colour, (248, 246, 240), 0.7))
                street.panel(left, left + 1.4, 1.2, 2.85, glass, raw=lit)
        return
    street.panel(0.3, width - 0.3, 0, 3.5, house.accent)
    panes = max(2, int(width / 3.2))
    step = (width - 1.2) / panes
    shining = canvas.light.lamps
    for pane in range(panes):
        left = 0.6 + pane * step
        glass, _ = _glass(canvas, rng)
        colour = mix((255, 214, 140), (255, 240, 205), float(rng.random())) if shining else glass
        street.panel(left + 0.12, left + step - 0.12, 0.5, 2.6, colour, raw=shining)
    awning = AWNINGS[rng.integers(len(AWNINGS))]
    stripes = int(width / 0.9)
    for stripe in range(stripes):
        a, b = 0.4 + stripe * (width - 0.8) / stripes, 0.4 + (stripe + 1) * (width - 0.8) / stripes
        colour = awning if stripe % 2 == 0 else (240, 234, 222)
        high, low = street.corners(a, b, 3.1, 3.1), street.corners(a, b, 2.55, 2.55, out=-house.side * 1.0)
        shade = canvas.light.shade(colour, max(street.facing, 0.3), house.near + a)
        canvas.fill3([high[0], high[1], low[1], low[0]], shade)


def _draw_roof(canvas: Canvas, rng: np.random.Generator, house: House, number: int) -> None:
    """A steep roof that leans away from the street, sometimes with dormers."""
    roof = house.roof or ROOFS[0]
    side, x, low, high = house.side, house.wall * house.side, house.height, house.height + 2.1
    inner = x + side * 1.2
    end = [(x, low, house.near), (x + side * 9, low, house.near), (x + side * 8, high, house.near + 0.6)]
    middle = (house.near + house.far) / 2
    light = canvas.light
    canvas.fill3([*end, (inner, high, house.near + 0.6)], light.shade(scale(roof, 0.85), 0.3, house.near), number)
    slope = [(x, low, house.near), (x, low, house.far), (inner, high, house.far - 0.6), (inner, high, house.near + 0.6)]
    canvas.fill3(slope, light.shade(roof, 0.2 + 0.8 * light.on_side(-side), middle), number)
    if rng.random() < 0.6:
        for z in np.arange(house.near + 1.6, house.far - 2, 3.2):
            glass, lit = _glass(canvas, rng)
            face = Face(canvas, (x + side * 0.15, 0.0, float(z)), (0.0, 1.0), 1.4, light.on_side(-side))
            face.panel(0, 1.4, low + 0.2, low + 1.7, mix(house.colour, (248, 246, 240), 0.5), number)
            face.panel(0.25, 1.15, low + 0.45, low + 1.45, glass, raw=lit)
    chimney = float(rng.uniform(house.near + 1, house.far - 1.5))
    column = Face(canvas, (x + side * 2.2, 0.0, chimney), (float(side), 0.0), 0.9, 0.3)
    column.panel(0, 0.9, high - 0.3, high + 0.8, scale(house.colour, 0.7), number)
