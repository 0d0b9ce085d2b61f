"""One worker of a cluster that is sure to have had a share: which of them get some is not fixed."""

from __future__ import annotations


class FirstWorker:
    """Whichever worker is asked about first; then the same one for good."""

    def __init__(self) -> None:
        self._chosen: dict[str, str] = {}

    def is_it(self, worker: str) -> bool:
        """Whether it is this worker; asked for the first time, it is. For any thread."""
        return self._chosen.setdefault("worker", worker) == worker

    @property
    def address(self) -> str:
        """Its address."""
        return self._chosen["worker"]
