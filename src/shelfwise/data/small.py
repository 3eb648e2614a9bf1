"""Small: a photo at the size that a vision-language model is shown, and as a data URL.

It does not know models or questions. The proportions stay, nothing is enlarged.
"""

import base64
import io

from PIL import Image

from shelfwise.data.images import open_image, pixels

#: JPEG quality of what is sent; colours at full resolution.
QUALITY = 92


def small_image(data: bytes, longest: int) -> Image.Image:
    """Return a photo from a file's content, its longer side at most ``longest`` pixels.

    Raises:
        ImageError: it cannot be read.
    """
    photo = open_image(data, target=longest)
    scale = min(1.0, longest / max(photo.width, photo.height))
    size = max(1, round(photo.height * scale)), max(1, round(photo.width * scale))
    return Image.fromarray(pixels(photo, size))


def data_url(image: Image.Image) -> str:
    """Return a picture as a ``data:`` URL (RFC 2397)."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")
