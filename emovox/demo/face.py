"""A drawn face that acts an emotion while it speaks."""

from dataclasses import dataclass, fields
from functools import lru_cache

import cv2
import numpy as np

SIDE = 224  # pixels of a VoxCeleb2 clip
SCALE = 2  # draw larger and reduce the picture, which smooths every edge
SHIFT = 4  # fractional bits of OpenCV's drawing coordinates

Point = tuple[float, float]


@dataclass(frozen=True)
class Expression:
    """Position of brows, eyes and mouth; all zero is a resting face."""

    brow_raise: float = 0.0  # -1..1, up is positive
    brow_tilt: float = 0.0  # -1..1, inner ends up is positive
    eye_open: float = 0.0  # -1..1, added to the opening of the lids
    smile: float = 0.0  # -1..1, corners of the mouth up is positive
    jaw: float = 0.0  # 0..1, opening of the mouth apart from speech
    width: float = 0.0  # -1..1, widening of the mouth
    squeeze: float = 0.0  # 0..1, cheeks up and lids tight

    def scaled(self, intensity: float) -> "Expression":
        """Return the same expression, stronger or weaker."""
        return Expression(*(intensity * getattr(self, f.name) for f in fields(self)))


EXPRESSIONS = {
    "neutral": Expression(-0.2, -0.15, -0.25, -0.1, 0.0, 0.0, 0.0),
    "happiness": Expression(0.15, 0.0, -0.1, 1.0, 0.25, 0.6, 0.8),
    "surprise": Expression(1.0, 0.1, 0.9, 0.0, 0.9, -0.5, 0.0),
    "sadness": Expression(-0.3, 1.0, -0.5, -1.0, 0.0, -0.2, 0.0),
    "anger": Expression(-0.95, -1.0, -0.3, -1.0, 0.7, -0.2, 0.75),
}


@dataclass(frozen=True, eq=False)
class Looks:
    """Appearance of one drawn person. Colours are RGB, float64 `[3]`, 0..255."""

    skin: np.ndarray
    hair: np.ndarray
    iris: np.ndarray
    face_width: float
    eye_distance: float
    brow_thickness: float
    mouth_width: float
    nose_length: float
    background: np.ndarray
    light: float  # direction of the light, -1 from the left to 1 from the right

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Looks":
        """Draw a person at random."""
        tone = rng.uniform(0.45, 1.0)
        return cls(
            skin=np.array([235 * tone, 195 * tone**1.15, 165 * tone**1.3]),
            hair=rng.uniform(0.1, 0.5) * np.array([200.0, 150.0, 110.0]),
            iris=rng.uniform(40, 120, 3),
            face_width=rng.uniform(0.92, 1.06),
            eye_distance=rng.uniform(0.94, 1.06),
            brow_thickness=rng.uniform(0.8, 1.3),
            mouth_width=rng.uniform(0.9, 1.1),
            nose_length=rng.uniform(0.9, 1.1),
            background=rng.uniform(60, 180, 3),
            light=rng.uniform(-1, 1),
        )


class Canvas:
    """Drawing in units of the face: x and y in pixels of the clip from the centre of the face."""

    def __init__(self, background: np.ndarray, centre: Point, roll: float) -> None:
        self.image = np.empty((SIDE * SCALE, SIDE * SCALE, 3), np.uint8)
        self.image[:] = background.astype(np.uint8)
        self._centre, self._cos, self._sin = centre, np.cos(roll), np.sin(roll)

    def points(self, xy: np.ndarray) -> np.ndarray:
        """Convert face units `[n, 2]` to OpenCV's fixed-point pixels."""
        turned = xy @ np.array([[self._cos, self._sin], [-self._sin, self._cos]])
        return np.round((turned + self._centre) * SCALE * 2**SHIFT).astype(np.int32)

    def fill(self, xy: np.ndarray, colour: np.ndarray) -> None:
        cv2.fillPoly(self.image, [self.points(xy)], colour.tolist(), cv2.LINE_AA, SHIFT)

    def line(self, xy: np.ndarray, colour: np.ndarray, thickness: float) -> None:
        width = max(1, round(thickness * SCALE))
        points = [self.points(xy)]
        cv2.polylines(self.image, points, False, colour.tolist(), width, cv2.LINE_AA, SHIFT)


def ellipse(
    x: float, y: float, rx: float, ry: float, start: float = 0.0, stop: float = 1.0
) -> np.ndarray:
    """Return points `[n, 2]` of an ellipse from `start` to `stop`: turns, clockwise from right."""
    angle = 2 * np.pi * np.linspace(start, stop, 40)
    return np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], axis=1)


def draw_face(
    looks: Looks, expression: Expression, jaw: float, blink: float, centre: Point, roll: float
) -> np.ndarray:
    """Return a picture uint8 `[224, 224, 3]` RGB of a person.

    `jaw` is the opening of the mouth by speech, 0..1; `blink` 0 for open eyes and 1 for shut ones;
    `centre` of the face in pixels; `roll` of the head in radians.
    """
    canvas = Canvas(looks.background, centre, roll)
    _draw_head(canvas, looks)
    for side in (-1, 1):
        _draw_eye(canvas, looks, expression, side, blink)
        _draw_brow(canvas, looks, expression, side)
    _draw_nose(canvas, looks)
    _draw_mouth(canvas, looks, expression, jaw)
    image = cv2.resize(canvas.image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    left, top = (SIDE - round(c) for c in centre)
    light = _light_map(looks.light)[top : top + SIDE, left : left + SIDE]
    return np.asarray(cv2.multiply(image, light, dtype=cv2.CV_8U))


def _draw_head(canvas: Canvas, looks: Looks) -> None:
    width = 58 * looks.face_width
    canvas.fill(ellipse(0, 150, 100, 62), _mix(looks.background, (30, 30, 40), 0.6))  # shoulders
    canvas.fill(ellipse(0, 70, 26, 52), 0.75 * looks.skin)  # neck
    canvas.fill(ellipse(0, -14, width + 9, 84), looks.hair)
    for side in (-1, 1):
        canvas.fill(ellipse(side * (width + 1), 6, 8, 15), 0.85 * looks.skin)
    canvas.fill(ellipse(0, 4, width, 76), looks.skin)
    canvas.fill(ellipse(0, 46, width * 0.72, 36), looks.skin)  # jaw
    canvas.fill(ellipse(0, -14, width + 6, 82, 0.58, 0.92), looks.hair)


def _draw_eye(canvas: Canvas, looks: Looks, e: Expression, side: int, blink: float) -> None:
    x, y = side * 24 * looks.eye_distance, -8.0
    opening = 5.6 * (1 + 0.75 * e.eye_open - 0.35 * e.squeeze) * (1 - blink)
    canvas.fill(ellipse(x, y, 15, 10), 0.88 * looks.skin)  # socket
    if opening > 0.8:
        canvas.fill(ellipse(x, y, 12, opening), np.array([240, 240, 238]))
        iris = min(5.2, opening + 1.5)
        canvas.fill(ellipse(x, y, 5.2, iris), looks.iris)
        canvas.fill(ellipse(x, y, 2.4, min(2.4, iris)), np.array([10, 10, 10]))
        canvas.fill(ellipse(x - 1.8, y - 1.8, 1.1, 1.1), np.array([250, 250, 250]))
    # The upper lid covers the iris above the opening.
    droop = 3.0 * side * e.brow_tilt * 0.5
    lid = ellipse(x, y, 13, max(opening, 0.6), 0.5, 1.0)
    lid[:, 1] += droop * np.linspace(-1, 1, len(lid)) * 0.6
    canvas.line(lid, 0.25 * looks.skin, 2.2)
    canvas.line(ellipse(x, y, 12, max(opening, 0.5), 0.05, 0.45), 0.6 * looks.skin, 1.0)
    if e.squeeze > 0.2:
        canvas.line(ellipse(x, y + 9, 13, 4, 0.1, 0.4), 0.75 * looks.skin, 1.2)


def _draw_brow(canvas: Canvas, looks: Looks, e: Expression, side: int) -> None:
    y = -25 - 9 * e.brow_raise
    along = np.linspace(0, 1, 12)  # from the inner end to the outer
    pinch = 4 * max(-e.brow_tilt, 0) * (1 - along)  # angry brows move together
    x = side * (24 * looks.eye_distance + (along - 0.5) * 30 - pinch)
    arch = 5 * (1 + 0.6 * max(e.brow_raise, 0)) * np.sin(np.pi * (0.15 + 0.8 * along))
    tilt = 9 * e.brow_tilt * (1 - along) - 3 * e.brow_tilt * along
    brow = np.stack([x, y + 4 - arch - tilt], axis=1)
    canvas.line(brow, 0.8 * looks.hair, 4.5 * looks.brow_thickness)
    if e.brow_tilt < -0.4:  # frown lines between the brows
        canvas.line(np.array([[side * 4, y + 2], [side * 3, y + 12]]), 0.6 * looks.skin, 1.4)
    if e.brow_raise > 0.5:
        canvas.line(ellipse(0, y - 14, 34, 4, 0.55, 0.95), 0.8 * looks.skin, 1.2)


def _draw_nose(canvas: Canvas, looks: Looks) -> None:
    tip = 22 * looks.nose_length
    shadow = 0.78 * looks.skin
    canvas.line(np.array([[6, -4], [8, tip - 6], [11, tip]]), shadow, 1.6)
    for side in (-1, 1):
        canvas.fill(ellipse(side * 5.5, tip + 2, 3.2, 1.8), 0.45 * looks.skin)
    canvas.line(ellipse(0, tip, 11, 5, 0.08, 0.42), shadow, 1.4)


def _draw_mouth(canvas: Canvas, looks: Looks, e: Expression, jaw: float) -> None:
    y, half = 46.0, 21 * looks.mouth_width * (1 + 0.4 * e.width)
    along = np.linspace(-1, 1, 25)
    corners = -9 * e.smile * along**2 + 4 * e.smile
    opening = 2 + 20 * min(1.0, e.jaw + 0.55 * jaw)
    bow = np.sqrt(np.clip(1 - along**2, 0, 1))
    upper, lower = y + corners - 0.25 * opening * bow, y + corners + 0.75 * opening * bow
    x = half * along
    lips = _mix(looks.skin, (150, 50, 60), 0.55)
    canvas.fill(_outline(x, upper - 4 * bow, lower + 5 * bow), lips)
    if opening > 4:
        canvas.fill(_outline(x * 0.92, upper, lower), np.array([45, 15, 20]))
        bared = 0.08 + 0.25 * abs(e.smile) + 0.2 * e.jaw  # lips drawn up or apart
        teeth = np.minimum(upper + bared * opening * bow + 1, lower)
        canvas.fill(_outline(x * 0.8, upper, teeth), np.array([235, 232, 225]))
    else:
        canvas.line(np.stack([x * 0.97, (upper + lower) / 2], 1), 0.4 * lips, 1.8)
    fold = 0.35 + 0.65 * max(e.smile, 0)
    for side in (-1, 1):  # from the nose past the corners of the mouth
        reach = half + 6 + 5 * max(e.smile, 0)
        crease = np.array([[side * 13, 24], [side * (reach - 3), 34], [side * reach, 46]])
        canvas.line(crease, _mix(looks.skin, 0.6 * looks.skin, fold), 1.4)
    if e.smile < -0.3:
        canvas.line(ellipse(0, 68, 14, 4, 0.55, 0.95), 0.75 * looks.skin, 1.4)


def _outline(x: np.ndarray, upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """Return the points `[2 n, 2]` around the area between two curves."""
    return np.concatenate([np.stack([x, upper], 1), np.stack([x, lower], 1)[::-1]])


@lru_cache(maxsize=4)
def _light_map(direction: float) -> np.ndarray:
    """Return the light from one side, darker to the rim of the head: `[2 SIDE, 2 SIDE, 3]`."""
    y, x = np.mgrid[-SIDE:SIDE, -SIDE:SIDE].astype(np.float32)
    u, v = x / 75, y / 95
    light = 1.0 + 0.16 * direction * u - 0.10 * v - 0.18 * np.clip(u * u + v * v, 0, 1.2)
    return np.repeat(light[..., None].astype(np.float32), 3, axis=2)


def _mix(a: np.ndarray, b: np.ndarray | tuple[int, ...], weight: float) -> np.ndarray:
    return (1 - weight) * a + weight * np.asarray(b)
