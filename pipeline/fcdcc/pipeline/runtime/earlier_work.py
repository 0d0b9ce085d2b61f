"""What earlier runs made of a job, and which of it is still true."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fcdcc.storage import ImageSource, PredictionStore, Progress, StoredRun, predictions_of
from fcdcc.storage.input_state import InputState

from ..errors import output_begun
from ..formatting import counted
from ..monitoring.output_status import is_damage
from ..options import JobConfig
from .input_changes import Redone, blocks_to_make_again, look_at_input
from .output import PredictionSpec, images_stored, resize_output
from .run_counters import RunCounters

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EarlierWork:
    """What earlier runs made of a job, compared with the images as they are now.

    Parameters
    ----------
    store
        The output, with the images that there are now.
    recorded
        Which of its blocks are done and stay.
    state
        The images as they are now.
    redone
        Which blocks that were done are made again.
    images_stored
        How many images the output has until it is brought up to date.
    """

    store: PredictionStore
    recorded: Progress
    state: InputState
    redone: Redone
    images_stored: int

    @property
    def images_removed(self) -> int:
        """How many images the output has more than the input."""
        return max(0, self.images_stored - self.store.layout.images)

    def only(self, blocks: NDArray[np.bool_]) -> EarlierWork:
        """Return the same, with nothing left to do of other blocks, (blocks,) bool."""
        done = self.recorded.done | ~blocks
        return replace(self, recorded=replace(self.recorded, done=done))

    def count(self, counters: RunCounters) -> None:
        """Give the counters of a run what they say of earlier runs."""
        counters.note_absent(self.recorded.provisional)
        counters.redone = self.redone.counts
        counters.failed_before = self.recorded.failed
        counters.not_full = self.recorded.grown
        counters.images_before = self._images_before
        counters.images_removed = self.images_removed

    @property
    def _images_before(self) -> dict[int, int]:
        """How many images had a prediction, of the blocks that are made again."""
        layout = self.store.layout
        damaged = [block for block, why in self.recorded.failed.items() if is_damage(why)]
        stops = {block: layout.bounds(block)[1] for block in (*self.redone.reasons, *damaged)}
        stops |= self.recorded.grown
        had = {b: min(stop, self.images_stored) - layout.bounds(b)[0] for b, stop in stops.items()}
        return {block: max(0, images) for block, images in had.items()}

    def bring_up_to_date(
        self, config: JobConfig, spec: PredictionSpec, counters: RunCounters
    ) -> PredictionStore:
        """Remove what is no longer true from the output, and give it the length of the input.

        Files beside the predictions that are damaged or missing are written again, and counted.

        Predictions are removed before the image ids are replaced, so that no image ever has the
        prediction of another one.
        """
        with output_begun():
            if self.recorded.pending or self.images_removed:
                self.store.clear(self.recorded)
            self.store.renew(self.redone.renewed)
            return resize_output(config, self.state, spec, counters.files_repaired.extend)


def look_at_earlier_work(
    config: JobConfig,
    source: ImageSource,
    stored: StoredRun,
    say: Callable[[str], None] | None,
) -> EarlierWork:
    """Return which blocks of a stored output stay as they are, and why others do not.

    Parameters
    ----------
    config, source
        Of the job.
    stored
        The output.
    say
        Called with a line for each reason for which blocks do not stay done; None if that was said
        before, of the images of which these are tiles.

    Raises
    ------
    OutputError, InputError
        If the output or the image ids cannot be read.
    """
    level = logging.DEBUG if say is None else logging.WARNING
    known = images_stored(config, source)
    had = source.images if known is None else known
    if had > source.images:
        logger.log(
            level,
            "the output has %s more than the input, which has %d now: its end is cut off",
            counted(had - source.images, "image"),
            source.images,
        )
    store = predictions_of(config.output, stored, source.images)
    state = look_at_input(source, config, level)
    recorded, redone = blocks_to_make_again(
        store.progress(), store, state, absence_fails=config.absent == "fail", say=say
    )
    return EarlierWork(store, recorded, state, redone, had)
