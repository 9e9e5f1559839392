"""One picture on disk: SVG and PNG, and in a text file what stands for it where it cannot be seen."""

from pathlib import Path

from studies.errors import UserError
from studies.sweep_drawing import draw
from studies.sweep_pictures import Picture, alternative


def write_picture(folder: Path, name: str, picture: Picture) -> Path:
    """Write `NAME.svg`, `NAME.png` and `NAME.txt`, in place of earlier ones; returns the PNG.

    Raises:
        UserError: The folder cannot be written.
    """
    svg, png = draw(picture)
    files = {"svg": svg, "txt": (alternative(picture) + "\n").encode(), "png": png}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for kind, content in files.items():
            (folder / f"{name}.{kind}").write_bytes(content)
    except OSError as error:
        raise UserError(f"{folder} must be a folder that can be written; {error.strerror}") from error
    return folder / f"{name}.png"
