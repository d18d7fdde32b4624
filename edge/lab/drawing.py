"""What is drawn into pictures of visits: the colours of outcomes, and lines of text that stay readable."""

import cv2

from edge.core.types import EventType, Image

Colour = tuple[int, int, int]

WAITING: Colour = (200, 200, 200)
COLOURS: dict[EventType, Colour] = {
    EventType.MATCH: (80, 200, 60),
    EventType.REJECT: (50, 60, 230),
    EventType.NO_DECISION: (40, 190, 240),
    EventType.SPOOF: (200, 60, 200),
    EventType.LEFT: (160, 160, 160),
}
"""BGR by the outcome of the visit; grey while it is open."""

FONT = cv2.FONT_HERSHEY_SIMPLEX


def write(image: Image, text: str, at: tuple[int, int], colour: Colour) -> None:
    """Write a line on a dark ground into a picture, moved to the left where it would not fit."""
    scale = max(0.45, image.shape[0] / 1000)
    (width, height), below = cv2.getTextSize(text, FONT, scale, 1)
    x = max(0, min(at[0], image.shape[1] - width))
    cv2.rectangle(image, (x, at[1] - height - 3), (x + width, at[1] + below), (30, 30, 30), -1)
    cv2.putText(image, text, (x, at[1]), FONT, scale, colour, 1, cv2.LINE_AA)
