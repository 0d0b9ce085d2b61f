"""Files that operating systems and network drives leave in any folder."""

from __future__ import annotations

__all__ = ["is_foreign"]

SYSTEM_NAMES = frozenset(
    {
        "#recycle",
        "$recycle.bin",
        "@eadir",
        "@recycle",
        "__macosx",
        "desktop.ini",
        "lost+found",
        "system volume information",
        "thumbs.db",
    }
)
"""Names, in lower case, of such files and folders that do not begin with a dot."""


def is_foreign(name: str) -> bool:
    """Return whether a file or folder belongs to the system or to another program, by its name.

    Names that begin with a dot are those of macOS (``.DS_Store``, ``._x``), of NFS (``.nfs…``), of
    FUSE (``.fuse_hidden…``) and of file managers. No name of a Zarr v3 store begins with one.

    >>> is_foreign("prediction/.DS_Store"), is_foreign("Thumbs.db"), is_foreign("prediction/c.0.0")
    (True, True, False)
    """
    last = name.rpartition("/")[2]
    return last.startswith(".") or last.lower() in SYSTEM_NAMES
