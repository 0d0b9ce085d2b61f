"""Executables that threads of this process are loading, for which tasks wait."""

from __future__ import annotations

import threading

_arriving: dict[str, list[threading.Event]] = {}
"""By fingerprint: an event for each executable that a thread of this process is loading."""

_arriving_lock = threading.Lock()


def begin(fingerprint: str) -> threading.Event:
    """Note that an executable is being loaded; setting the event and :func:`end` undo that."""
    event = threading.Event()
    with _arriving_lock:
        _arriving.setdefault(fingerprint, []).append(event)
    return event


def end(fingerprint: str, event: threading.Event) -> None:
    """Note that an executable is loaded, or that this failed."""
    event.set()
    with _arriving_lock:
        left = [other for other in _arriving.pop(fingerprint, []) if other is not event]
        if left:
            _arriving[fingerprint] = left


def wait_for(fingerprint: str) -> bool:
    """Wait until an executable is loaded; return whether one was being loaded."""
    with _arriving_lock:
        events = list(_arriving.get(fingerprint, ()))
    for event in events:
        event.wait()
    return bool(events)
