"""Config files: where they are looked for, and the text in them."""

import os
from pathlib import Path

from fastrl import registry

SHIPPED = Path(__file__).parent.parent / "configs"


def read(path: str | Path) -> tuple[str, str]:
    """The text of the config at `path` and the name to call it by in errors.

    Raises FileNotFoundError if there is none, ValueError if it is no text file.
    """
    file = find(path)
    try:
        return file.read_text(encoding="utf-8-sig"), str(path)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is not a config: no UTF-8 text ({error.reason})") from None
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from None


def find(path: str | Path) -> Path:
    """The file that `path` means: a path, or the name of a config in ./configs or shipped.

    Raises FileNotFoundError if there is none, with the nearest names, and ValueError for a
    folder or a device.
    """
    file = Path(path)
    if not str(path).strip():
        raise ValueError("the path of the config is empty")
    if os.path.isfile(file):  # unlike Path.is_file it has no error of its own for odd names
        return file
    if os.path.isdir(file):
        inside = file / "config.toml"
        hint = f": did you mean {inside}?" if inside.is_file() else ", not a config file"
        raise ValueError(f"{path}: is a folder{hint}")
    if os.path.exists(file):
        raise ValueError(f"{path}: is not a regular file")
    known = available()
    named = file.suffix in ("", ".toml") and file.parent in (Path(), Path("configs"))
    if named and file.stem in known:
        return known[file.stem]
    near = registry.nearest(file.stem, known)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "see `fastrl list`"
    raise FileNotFoundError(f"{path}: there is no such config file: {hint}")


def available() -> dict[str, Path]:
    """The configs by name: those shipped with fastrl, and over them those in ./configs."""
    folders = (SHIPPED, Path("configs"))
    return {f.stem: f for folder in folders for f in sorted(folder.glob("*.toml"))}


def summary(file: Path) -> str:
    """The first comment line of a config."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        return ""
    first = next((line for line in lines if line.strip()), "")
    return first.lstrip("# ").strip() if first.startswith("#") else ""
