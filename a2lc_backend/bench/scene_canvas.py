"""What a drawn street scene is painted on: a camera, a light, and an image that knows which object each pixel shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Colour: TypeAlias = tuple[float, float, float]
"""Red, green, blue, 0 to 255."""
Point: TypeAlias = tuple[float, float]
"""Pixels to the right and down, from the upper left corner."""
Point3: TypeAlias = tuple[float, float, float]
"""Metres to the right of the camera, up from the ground, ahead of the camera."""

CLASSES = (
    "Sky",
    "Building",
    "Pole",
    "Road",
    "Pavement",
    "Tree",
    "SignSymbol",
    "TrafficLight",
    "Fence",
    "Car",
    "Pedestrian",
)
SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, SIGN, LIGHT, FENCE, CAR, PEDESTRIAN = range(len(CLASSES))

SUPERSAMPLING = 3
NEAR = 1.5


def mix(one: Colour, other: Colour, share: float) -> Colour:
    """Blend two colours; `share` is the part of the other, 0 to 1."""
    share = min(max(share, 0.0), 1.0)
    return (
        one[0] + (other[0] - one[0]) * share,
        one[1] + (other[1] - one[1]) * share,
        one[2] + (other[2] - one[2]) * share,
    )


def scale(colour: Colour, factor: float) -> Colour:
    """Brighten or darken a colour."""
    return (colour[0] * factor, colour[1] * factor, colour[2] * factor)


@dataclass(frozen=True)
class Camera:
    """A pinhole camera that looks down the street.

    Attributes:
        focal: focal length in pixels.
        height: metres above the ground.
        centre: the pixel column of the vanishing point.
        horizon: the pixel row of the horizon.
    """

    focal: float
    height: float
    centre: float
    horizon: float

    def project(self, point: Point3) -> Point:
        """Where a point of the street lies in the image."""
        x, y, z = point[0], point[1], max(point[2], NEAR)
        return self.centre + self.focal * x / z, self.horizon + self.focal * (self.height - y) / z

    def pixels(self, metres: float, depth: float) -> float:
        """How many pixels a length has at a depth."""
        return self.focal * metres / max(depth, NEAR)


@dataclass(frozen=True)
class Light:
    """The light of one time of day.

    Attributes:
        name: what it is called.
        sky_top: sky colour at the top of the image.
        sky_low: sky colour at the horizon.
        ambient: share of each colour that is seen in the shade.
        sun: share added where the sun falls.
        sun_side: −1 with the sun at the left, 1 at the right.
        haze: colour of the far distance.
        haze_depth: metres until two thirds of the colours are haze.
        lit_windows: share of the windows with light in them.
        shadow: darkness of cast shadows, 0 to 1.
        clouds: share of the sky under clouds, 0 to 1.
        lamps: whether lamps and headlights are on.
    """

    name: str
    sky_top: Colour
    sky_low: Colour
    ambient: Colour
    sun: Colour
    sun_side: int
    haze: Colour
    haze_depth: float
    lit_windows: float
    shadow: float
    clouds: float
    lamps: bool = False

    def shade(self, colour: Colour, facing: float, depth: float) -> Colour:
        """The colour of a surface as it is seen.

        Args:
            colour: its own colour.
            facing: 1 = turned to the sun, 0 = in the shade.
            depth: metres from the camera.
        """
        seen = (
            colour[0] * (self.ambient[0] + self.sun[0] * facing),
            colour[1] * (self.ambient[1] + self.sun[1] * facing),
            colour[2] * (self.ambient[2] + self.sun[2] * facing),
        )
        return mix(seen, self.haze, 1.0 - float(np.exp(-depth / self.haze_depth)))

    def on_side(self, normal: float) -> float:
        """How much sun falls on a wall whose normal points to −1 (left) or 1 (right)."""
        return 1.0 if normal * self.sun_side > 0 else 0.0


NOON = Light(
    name="noon",
    sky_top=(70, 134, 214),
    sky_low=(198, 224, 242),
    ambient=(0.6, 0.65, 0.74),
    sun=(0.5, 0.46, 0.38),
    sun_side=1,
    haze=(198, 216, 230),
    haze_depth=190,
    lit_windows=0.0,
    shadow=0.4,
    clouds=0.45,
)
MORNING = Light(
    name="morning",
    sky_top=(122, 168, 216),
    sky_low=(250, 228, 204),
    ambient=(0.6, 0.62, 0.7),
    sun=(0.48, 0.41, 0.3),
    sun_side=1,
    haze=(236, 224, 212),
    haze_depth=110,
    lit_windows=0.03,
    shadow=0.32,
    clouds=0.35,
)
OVERCAST = Light(
    name="overcast",
    sky_top=(158, 172, 186),
    sky_low=(218, 222, 224),
    ambient=(0.8, 0.83, 0.86),
    sun=(0.1, 0.1, 0.09),
    sun_side=1,
    haze=(208, 214, 218),
    haze_depth=100,
    lit_windows=0.05,
    shadow=0.14,
    clouds=0.8,
)
GOLDEN = Light(
    name="golden",
    sky_top=(92, 128, 184),
    sky_low=(254, 200, 138),
    ambient=(0.52, 0.5, 0.57),
    sun=(0.62, 0.45, 0.24),
    sun_side=1,
    haze=(246, 200, 156),
    haze_depth=130,
    lit_windows=0.12,
    shadow=0.42,
    clouds=0.4,
)
DUSK = Light(
    name="dusk",
    sky_top=(40, 50, 104),
    sky_low=(236, 148, 122),
    ambient=(0.42, 0.43, 0.58),
    sun=(0.14, 0.08, 0.08),
    sun_side=1,
    haze=(158, 118, 138),
    haze_depth=120,
    lit_windows=0.45,
    shadow=0.15,
    clouds=0.35,
    lamps=True,
)


def fractal(
    rng: np.random.Generator, size: tuple[int, int], cells: tuple[int, int], octaves: int
) -> NDArray[np.float32]:
    """Smooth noise in several sizes at once, as clouds and leaves have it.

    Args:
        rng: where the chance comes from.
        size: height and width in pixels.
        cells: bumps down and across in the coarsest layer.
        octaves: layers; each has twice the bumps and half the strength of the one before.

    Returns:
        (H, W) float32, mean 0, standard deviation 1.
    """
    noise = np.zeros(size, np.float32)
    for octave in range(octaves):
        shape = (min(cells[0] << octave, size[0]), min(cells[1] << octave, size[1]))
        layer = rng.standard_normal(shape).astype(np.float32)
        noise += cv2.resize(layer, (size[1], size[0]), interpolation=cv2.INTER_CUBIC) * 0.5**octave
    return np.asarray((noise - noise.mean()) / (noise.std() + 1e-6), np.float32)


class Canvas:
    """An image that is painted from back to front, and beside it the number of the object that each pixel shows.

    Both are drawn in the same geometry at `SUPERSAMPLING` times the size: the image is averaged down (smooth edges), of
    the numbers the middle sample is kept (hard edges).
    """

    def __init__(self, size: tuple[int, int], camera: Camera, light: Light) -> None:
        self.size = size
        self.camera = camera
        self.light = light
        self.objects: list[int] = []
        self.glows: list[tuple[Point, float, Colour]] = []
        large = (size[1] * SUPERSAMPLING, size[0] * SUPERSAMPLING)
        self._image = Image.new("RGB", large)
        self._numbers = Image.new("I", large)
        self._paint = ImageDraw.Draw(self._image)
        self._tint = ImageDraw.Draw(self._image, "RGBA")
        self._mark = ImageDraw.Draw(self._numbers)

    def add(self, class_id: int) -> int:
        """Number a new object of a class; pass the number to `fill`."""
        self.objects.append(class_id)
        return len(self.objects) - 1

    def background(self, image: NDArray[np.uint8], number: int) -> None:
        """Fill the canvas with an (H, W, 3) uint8 image that shows one object."""
        large = Image.fromarray(image).resize(self._image.size, Image.Resampling.BICUBIC)
        self._image.paste(large)
        self._numbers.paste(number, (0, 0, *self._numbers.size))

    def fill(
        self, points: Sequence[Point], colour: Colour | None, number: int | None = None, alpha: float = 1.0
    ) -> None:
        """Paint a polygon.

        Args:
            points: its corners in pixels of the final image.
            colour: None marks the object without painting.
            number: the object it belongs to; None paints without marking (details, shadows).
            alpha: how much it covers what lies below, 0 to 1.
        """
        corners = [(x * SUPERSAMPLING, y * SUPERSAMPLING) for x, y in points]
        if number is not None:
            self._mark.polygon(corners, fill=number)
        if colour is None:
            return
        red, green, blue = (int(min(max(value, 0), 255)) for value in colour)
        if alpha >= 1:
            self._paint.polygon(corners, fill=(red, green, blue))
        else:
            self._tint.polygon(corners, fill=(red, green, blue, int(255 * alpha)))

    def fill3(
        self, points: Sequence[Point3], colour: Colour | None, number: int | None = None, alpha: float = 1.0
    ) -> None:
        """Paint a polygon whose corners are given in metres; else as `fill`."""
        self.fill([self.camera.project(point) for point in points], colour, number, alpha)

    def disc(
        self,
        centre: Point,
        radius: Point,
        colour: Colour | None,
        number: int | None = None,
        alpha: float = 1.0,
        corners: int = 20,
    ) -> None:
        """Paint an ellipse (or, with few corners, a regular polygon); radius in pixels across and down."""
        angles = 2 * np.pi * (np.arange(corners) + 0.5) / corners
        points = [(centre[0] + radius[0] * float(np.sin(a)), centre[1] - radius[1] * float(np.cos(a))) for a in angles]
        self.fill(points, colour, number, alpha)

    def glow(self, centre: Point, radius: float, colour: Colour) -> None:
        """Let a lamp shine; the light is added when the scene is finished. Radius in pixels."""
        self.glows.append((centre, radius, colour))

    def finish(self) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """Average the image down and take the numbers.

        Returns:
            (H, W, 3) float32 image, 0 to 255 where no lamp shines, and (H, W) int32 object numbers, to be looked up in
            `objects`.
        """
        image = np.array(self._image.reduce(SUPERSAMPLING), np.float32)
        middle = SUPERSAMPLING // 2
        numbers = np.array(self._numbers, np.int32)[middle::SUPERSAMPLING, middle::SUPERSAMPLING]
        rows, columns = np.ogrid[: self.size[0], : self.size[1]]
        for (x, y), radius, colour in self.glows:
            strength = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * max(radius, 0.5) ** 2)).astype(np.float32)
            image += strength[..., None] * np.array(colour, np.float32)
        return image, numbers
