"""Warp: pictures moved by one matrix and recoloured by another, many at once.

It does not know what is drawn, or why. Coordinates run from -1 to 1 over a picture, x to the right and y down.
Legend: B pictures as planes C (red, green, blue), n some of them, H and W the pixels that come in, h and w those that
go out.
"""

import math
from typing import Any

import numpy as np
import torch
from torch.nn.functional import grid_sample, interpolate, pad

Array = np.ndarray[Any, Any]
#: Share of red, green and blue in luminance (ITU-R BT.601).
LUMA = np.array([0.299, 0.587, 0.114])
#: From red, green, blue to luminance and two axes of colour (the YIQ of NTSC); hue is the angle between those.
YIQ = np.array([LUMA, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])


def homographies(
    *,
    crop: Array,
    flip: Array,
    turn: Array,
    scale: Array,
    shear: Array,
    move: Array,
    corners: Array,
    aspect: float,
) -> Array:
    """Return float64 [B, 3, 3]: where in the picture that comes in each place of the one that goes out lies.

    Args:
        crop: [4, B], the half width, half height and centre (x, y) of the part cut out.
        flip: bool [B].
        turn: radians clockwise, [B].
        scale: how many times larger things get, [B].
        shear: the tangent of the angle, [B].
        move: [2, B], in x and y.
        corners: [8, B], how far inwards each corner lies, x and y: top left, top right, bottom right, bottom left.
        aspect: height over width of what comes in; turns and shears are of the picture as it is seen.
    """
    count = len(flip)

    def matrix(rows: list[list[Any]]) -> Array:
        return np.stack([np.stack([np.broadcast_to(v, count) for v in row], axis=-1) for row in rows], axis=1)

    cut = matrix([[np.where(flip, -1, 1) * crop[0], 0.0, crop[2]], [0.0, crop[1], crop[3]], [0.0, 0.0, 1.0]])
    # What things do is undone to find where they were: back by the move, then turn, shear and scale.
    cos, sin = np.cos(turn), np.sin(turn)
    across, along = 1 / aspect, aspect
    moved = matrix([[1.0, 0.0, -move[0]], [0.0, 1.0, -move[1]], [0.0, 0.0, 1.0]])
    turned = matrix([[cos, sin * along, 0.0], [-sin * across, cos, 0.0], [0.0, 0.0, 1.0]])
    sheared = matrix([[1 / scale, -shear * along / scale, 0.0], [0.0, 1 / scale, 0.0], [0.0, 0.0, 1.0]])
    result: Array = _quadrilateral(corners) @ sheared @ turned @ moved @ cut
    return result


def _quadrilateral(inwards: Array) -> Array:
    """The matrices [B, 3, 3] that bring the corners of a picture inwards (closed form of Heckbert 1989)."""
    signs = np.array([-1, -1, 1, -1, 1, 1, -1, 1.0])[:, None]
    x0, y0, x1, y1, x2, y2, x3, y3 = signs * (1 - inwards)
    sum_x, sum_y = x0 - x1 + x2 - x3, y0 - y1 + y2 - y3
    dx1, dx2, dy1, dy2 = x1 - x2, x3 - x2, y1 - y2, y3 - y2
    bottom = dx1 * dy2 - dx2 * dy1
    g, h = (sum_x * dy2 - dx2 * sum_y) / bottom, (dx1 * sum_y - sum_x * dy1) / bottom
    one = np.ones_like(g)
    rows = [
        [x1 - x0 + g * x1, x3 - x0 + h * x3, x0],
        [y1 - y0 + g * y1, y3 - y0 + h * y3, y0],
        [g, h, one],
    ]
    unit = np.stack([np.stack(row, axis=-1) for row in rows], axis=1)
    # From -1 to 1 instead of 0 to 1.
    result: Array = unit @ np.array([[0.5, 0, 0.5], [0, 0.5, 0.5], [0, 0, 1]])
    return result / result[:, 2:, 2:]


def warp(
    planes_BCHW: torch.Tensor, matrices_B33: torch.Tensor, size: tuple[int, int], least: float
) -> torch.Tensor:
    """Return [B, C, h, w]: pictures sampled once, bilinearly; beyond an edge the edge continues.

    Args:
        planes_BCHW: float32.
        matrices_B33: see ``homographies``.
        size: (h, w).
        least: the smallest share of a side that is cut out; pictures far larger than what goes out are averaged
            down before they are sampled.
    """
    height, width = size
    tall, wide = planes_BCHW.shape[2:]
    factor = int(min(tall / height, wide / width) * least)
    if factor > 1:
        planes_BCHW = interpolate(planes_BCHW, size=(tall // factor, wide // factor), mode="area")
    x_w = (torch.arange(width, device=planes_BCHW.device, dtype=torch.float64) * 2 + 1) / width - 1
    y_h = (torch.arange(height, device=planes_BCHW.device, dtype=torch.float64) * 2 + 1) / height - 1

    def fill(at: int, out_Bhw: torch.Tensor) -> torch.Tensor:
        """One coordinate of every place, before it is divided."""
        across_B1w = matrices_B33[:, at, 0, None, None] * x_w
        down_Bh1 = matrices_B33[:, at, 1, None, None] * y_h[:, None] + matrices_B33[:, at, 2, None, None]
        return torch.add(across_B1w.float(), down_Bh1.float(), out=out_Bhw)

    grid_Bhw2 = planes_BCHW.new_empty(len(planes_BCHW), height, width, 2)
    fill(0, grid_Bhw2[..., 0])
    fill(1, grid_Bhw2[..., 1])
    if bool((matrices_B33[:, 2, :2] != 0).any()):
        grid_Bhw2 /= fill(2, torch.empty_like(grid_Bhw2[..., 0]))[..., None]
    return grid_sample(planes_BCHW, grid_Bhw2, mode="bilinear", padding_mode="border", align_corners=False)


def colour_matrices(
    *, brightness: Array, contrast: Array, saturation: Array, hue: Array
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return float32 [B, 3, 3] and [B]: the colours' matrix, and how much of the mean grey is added.

    Each is a linear map of red, green and blue: brightness a factor, saturation a step away from the pixel's own
    grey, hue a turn about the grey axis; contrast is a step away from the picture's mean grey.

    Args:
        brightness, contrast, saturation: factors [B].
        hue: turns, [B].
    """
    angle = 2 * np.pi * hue
    cos, sin, zero, one = np.cos(angle), np.sin(angle), np.zeros_like(angle), np.ones_like(angle)
    turn = np.stack(
        [np.stack(row, axis=-1) for row in ([one, zero, zero], [zero, cos, -sin], [zero, sin, cos])], axis=1
    )
    shifted = np.linalg.inv(YIQ) @ turn @ YIQ
    grey = np.broadcast_to(LUMA, (3, 3))
    saturated = saturation[:, None, None] * np.eye(3) + (1 - saturation)[:, None, None] * grey
    matrix = (brightness * contrast)[:, None, None] * (saturated @ shifted)
    return torch.from_numpy(matrix).float(), torch.from_numpy(brightness * (1 - contrast)).float()


def recolour(planes_BChw: torch.Tensor, matrix_B33: torch.Tensor, grey_B: torch.Tensor) -> torch.Tensor:
    """Return the pictures with other colours, kept from 0 to 255.

    Args:
        planes_BChw: float32.
        matrix_B33: of the colours.
        grey_B: how many times the picture's mean grey is added.
    """
    matrix_B33, grey_B = matrix_B33.to(planes_BChw.device), grey_B.to(planes_BChw.device)
    luma_C = torch.from_numpy(LUMA).to(planes_BChw)
    mean_B = (planes_BChw.mean(dim=(2, 3)) * luma_C).sum(dim=1)
    shift_B11 = (grey_B * mean_B)[:, None, None]
    result_BCp = torch.bmm(matrix_B33, planes_BChw.flatten(2))
    return result_BCp.add_(shift_B11).clamp_(0, 255).view_as(planes_BChw)


def blur(planes_nChw: torch.Tensor, sigma_n: torch.Tensor, most: float) -> torch.Tensor:
    """Return the pictures after a Gaussian blur, each of its own width, edges continued.

    Args:
        planes_nChw: float32.
        sigma_n: in pixels.
        most: the largest sigma there can be; three of it are added up on either side.
    """
    height, width = planes_nChw.shape[2:]
    reach = max(1, min(math.ceil(3 * most), height - 1, width - 1))
    at_k = torch.arange(-reach, reach + 1, device=planes_nChw.device)
    weight_nk = torch.exp(-0.5 * (at_k / sigma_n.float()[:, None]) ** 2)
    weight_nk = weight_nk / weight_nk.sum(dim=1, keepdim=True)
    for dim, margin in ((3, (reach, reach, 0, 0)), (2, (0, 0, reach, reach))):
        wide = pad(planes_nChw, margin, mode="replicate")
        planes_nChw = sum(
            (
                wide.narrow(dim, k, planes_nChw.shape[dim]) * weight_nk[:, k, None, None, None]
                for k in range(2 * reach + 1)
            ),
            start=torch.zeros_like(planes_nChw),
        )
    return planes_nChw
