"""The output of a job with tiles, and its bands, which are made once their tiles are done.

Such a job has two outputs. That of its tiles lies in a folder of the other one, and is computed,
recorded and continued like that of any job, of which every image is a tile. The other one has the
predictions of the images, in bands (:mod:`.assembly`). Once all bands are done, the predictions of
the tiles are removed. If images change, the bands that need them are made again, and the tiles of
these.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from dask._task_spec import GraphNode
from dask.typing import Key
from numpy.typing import NDArray

from fcdcc.storage import (
    BlockLayout,
    Coordinate,
    DamageError,
    Fingerprint,
    ImageSource,
    Json,
    OutputError,
    OutputGoneError,
    PredictionStore,
    Preparation,
    Progress,
    StoredRun,
    check_fingerprint,
    inspect_output,
)
from fcdcc.storage.block_inputs import INPUT, BlockInput
from fcdcc.storage.input_state import InputState
from fcdcc.storage.locations import shown
from fcdcc.storage.outputs import remove_former_tiles, tiles_of
from fcdcc.storage.records import ABSENT
from fcdcc.storage.tile_grid import TileGrid

from ...anyk import AnyK, Share
from ...anyk.keys import task_key
from ...errors import output_begun
from ...formatting import counted
from ...model import Model
from ...monitoring.summary import BlockFailure, Summary
from ...options import JobConfig
from ...plans.plan import Plan
from ...stored_forms import StoredForm
from ..block_runner import BlockJob, BlockOutcome, failure_reason
from ..earlier_work import EarlierWork, look_at_earlier_work
from ..input_changes import look_at_input
from ..model_preparation import with_model_classes
from ..output import (
    FORMER_FINGERPRINT_FIELDS,
    PredictionSpec,
    check_stored,
    create_output,
    how_made,
    is_same_job,
    job_fingerprint,
    make_room,
)
from ..run_counters import MAX_NAMED_FAILURES, RunCounters
from .assembly import Assembly, DamagedTilesError, tile_dim, write_band
from .tiling import Tiling

logger = logging.getLogger(__name__)

BAND_BATCH = 1
"""Images of a band."""

OF_IMAGES = (
    "status", "fingerprint", "images_done", "images_removed", "blocks_redone", "redone",
    "blocks_provisional", "chunks_absent", "blocks_repaired", "blocks_retried",
    "blocks_not_full", "images_again",
)  # fmt: skip
"""Members of the summary that are about images and their bands, not about tiles."""

STORED_TILES = "logits"
"""The form in which the predictions of tiles are stored: what the network gives."""


class Mosaic:
    """The predictions of images that are put together from those of their tiles.

    Parameters
    ----------
    config
        The options of the job.
    source
        Its images, whole.
    assembly
        How the predictions of tiles become those of images.
    spec
        What is stored of the images.
    fingerprint
        Of the job.
    """

    def __init__(
        self,
        config: JobConfig,
        source: ImageSource,
        assembly: Assembly,
        spec: PredictionSpec,
        fingerprint: Fingerprint,
    ) -> None:
        self.config = config
        self.spec = spec
        self.fingerprint = fingerprint
        self._source = source
        self._assembly = assembly
        self._state: InputState | None = None
        self._stored: StoredRun | None = None
        self._earlier: EarlierWork | None = None
        self._store: PredictionStore | None = None
        self._layout = spec.arrays[0].layout(source.images, BAND_BATCH)
        self._done = np.zeros(self._layout.blocks, np.bool_)
        self._counters = RunCounters(fingerprint.digest, self._layout, self._done)
        self._inputs: dict[int, BlockInput] = {}
        """What bands that are not done are made from, as it was before any tile was looked at."""

    @classmethod
    def of(
        cls,
        config: JobConfig,
        model: Model,
        source: ImageSource,
        tiling: Tiling,
        preparation: Preparation,
    ) -> Mosaic:
        """Return the output of a job with tiles.

        Parameters
        ----------
        config, model, source
            Of the job; the images are whole.
        tiling
            How they are cut.
        preparation
            Of the images.

        Raises
        ------
        OptionError
            If the options ask for something that the model does not predict.
        """
        form = StoredForm.parse(config.store)
        assembly = Assembly.of(tiling, form, config.threshold)
        about: dict[str, Json] = {**tiling.grid.as_json(), "blend": None}
        if tiling.is_blended:
            about |= {"blend": tiling.blend, "margin": [*(tiling.margin or ())]}
        arrays = assembly.arrays(source.spatial_dims)
        spec = PredictionSpec.of_arrays(config, source, assembly.stored, arrays)
        labels = () if tiling.is_blended else tuple(_labels(source, tiling.grid))
        spec = replace(with_model_classes(spec, model), labels=labels, about={"tiles": about})
        fingerprint = job_fingerprint(
            model.network, source, preparation, config, assembly.stored, about
        )
        return cls(config, source, assembly, spec, fingerprint)

    @property
    def config_of_tiles(self) -> JobConfig:
        """The options of the job of the tiles."""
        changed = {"store": STORED_TILES, "threshold": None, "classes": None}
        return self.config.model_copy(update={"output": tiles_of(self.config.output), **changed})

    @property
    def is_new(self) -> bool:
        """Whether the output is created by this run, and so has no tiles yet either."""
        return self._stored is None

    def look(self, say: Callable[[str], None]) -> None:
        """See what earlier runs made of the output, and which of it is still true.

        What the other bands are made from is noted here, before the run looks at the tiles that
        there are, and before it reads others: if an image changes later, the next run notices.

        Parameters
        ----------
        say
            Called with a line for each reason for which bands do not stay done.

        Raises
        ------
        OutputMismatchError, OutputError, DamageError
            If the output cannot be continued.
        """
        config = self.config
        try:
            stored = inspect_output(config.output)
        except DamageError:
            if not config.restart:
                raise
            stored = None
        if stored is not None and config.restart and not is_same_job(stored, self.fingerprint):
            stored = None
        self._stored = stored
        if stored is None:
            self._state = look_at_input(self._source, config)
            self._note_inputs(self._state)
            return
        check_fingerprint(config.output, stored, self.fingerprint, FORMER_FINGERPRINT_FIELDS)
        self.spec = check_stored(stored, self.spec, BAND_BATCH, config)
        earlier = look_at_earlier_work(config, self._source, stored, say)
        self._earlier, self._state = earlier, earlier.state
        self._layout = earlier.store.layout
        self._done = earlier.recorded.done.copy()
        self._counters = RunCounters(earlier.store.fingerprint, self._layout, self._done)
        earlier.count(self._counters)
        self._note_inputs(self._state)

    def _note_inputs(self, state: InputState) -> None:
        """Note what the bands that are not done are made from."""
        for band in self.pending:
            image, _ = self._layout.bounds(band)
            region = image, image + 1, self._assembly.image_rows(*self._rows_of(band))
            self._inputs[band] = state.block_input(*region)
            absent = None if state.listing is None else state.listing.absent([region])
            if absent is not None and absent.count:
                self._counters.absent[band] = absent

    @property
    def pending(self) -> list[int]:
        """Bands that are not done, ascending."""
        return [int(band) for band in np.flatnonzero(~self._done)]

    def blocks_needed(self, layout: BlockLayout) -> NDArray[np.bool_]:
        """Return which blocks of tiles bands that are not done need, (blocks,) bool."""
        needed = np.zeros(layout.blocks, np.bool_)
        for band in self.pending:
            blocks = self._blocks_of(band, layout)
            needed[blocks.start : blocks.stop] = True
        return needed

    def prepare(self, plan: Plan) -> None:
        """Create the output, or bring it up to date; before any tile is written."""
        self.bring_up_to_date()
        if self._store is None:
            with output_begun():
                make_room(self.config)
                self._store = create_output(
                    self.config, self._looked_at, self.fingerprint, plan, self.spec, BAND_BATCH
                )

    def bring_up_to_date(self) -> None:
        """Remove what is no longer true from the output, and give it the length of the input."""
        if self._earlier is not None:
            self._store = self._earlier.bring_up_to_date(self.config, self.spec, self._counters)

    @property
    def store(self) -> PredictionStore:
        """The output, which :meth:`prepare` has made."""
        if self._store is None:
            raise OutputError(f"{self.config.output} is not there yet: prepare it first")
        return self._store

    def jobs(self, tiles: PredictionStore, run: str, plan: Plan) -> Iterator[BlockJob]:
        """Yield the tasks of the bands whose tiles are all done, and which are not done yet.

        Bands whose tiles are not there fail.

        Each band is made by any one of two shares, and the second is on standby: if a worker is
        late or stops, another one makes the same band.

        Parameters
        ----------
        tiles
            The output of the tiles.
        run
            Of the task keys; not that of the tiles, whose tasks have the same places.
        plan
            Of the tiles.
        """
        done = tiles.progress().done
        for band in self.pending:
            missing = [block for block in self._blocks_of(band, tiles.layout) if not done[block]]
            if missing:
                are = counted(len(missing), "block of its tiles is", "blocks of its tiles are")
                self._fail(band, f"{are} not there: run again")
                continue
            arguments = self._assembly, tiles, self.store, band, self._details(band, plan)
            keys = task_key("share", run, 0, band), task_key("parity", run, 0, band, 1)
            tasks: dict[Key, GraphNode] = {key: Share(key, write_band, *arguments) for key in keys}
            key = task_key("write", run, 0, band)
            tasks[key] = AnyK(
                key, len, dict(enumerate(keys)), 1, standby={1}, plain=range(len(keys))
            )
            yield BlockJob(band, tasks, key)

    def ended(self, outcome: BlockOutcome, tiles: PredictionStore) -> None:
        """Count and record how a band ended; damaged tiles are marked for the next run."""
        band = outcome.block
        if outcome.error is None:
            self._done[band] = True
            self._counters.failed.pop(band, None)
            self._counters.add(outcome)
            logger.info("band %d (%s) is done", band, self._content(band))
            return
        if isinstance(outcome.error, DamagedTilesError):
            try:
                _discard_damaged(tiles, self._blocks_of(band, tiles.layout))
            except OutputGoneError:  # nothing else can be written either
                raise
            except OutputError as error:
                logger.error("%s", error)
        self._fail(band, failure_reason(outcome.error))

    def _fail(self, band: int, reason: str) -> None:
        """Count, log and record that a band failed."""
        logger.error("band %d (%s) failed: %s", band, self._content(band), reason)
        self._counters.failed[band] = reason
        try:
            self.store.record_failure(band, reason)
        except OutputGoneError:
            raise
        except OutputError as error:
            logger.error("%s", error)

    def _content(self, band: int) -> str:
        """Return what a band is of, in words."""
        image, _ = self._layout.bounds(band)
        start, stop = self._rows_of(band)
        return f"image {image}, rows {start} to {stop - 1}"

    @property
    def movement(self) -> Hashable:
        """A value that changes whenever a band ends."""
        return self._counters.movement

    @property
    def is_complete(self) -> bool:
        """Whether all bands are done."""
        return bool(self._done.all())

    def summary(self, tiles: Summary) -> Summary:
        """Return the summary of a run, given that of its tiles."""
        found = self._counters.summary()
        rate = found.images_done / tiles.seconds if tiles.seconds > 0 else 0.0
        failed = [BlockFailure(each.block, f"band: {each.reason}") for each in found.failures]
        return replace(
            tiles,
            **{name: getattr(found, name) for name in OF_IMAGES},
            output=shown(self.config.output),
            prediction=str(self.spec.stored),
            images_per_second=round(rate, 3),
            tiles_done=tiles.images_done,
            bands_total=found.blocks_total,
            bands_done=found.blocks_done,
            bands_skipped=found.blocks_skipped,
            bands_failed=found.blocks_failed,
            failures=(*tiles.failures, *failed)[:MAX_NAMED_FAILURES],
            files_repaired=(*found.files_repaired, *tiles.files_repaired),
        )

    def clean_up(self, tiles: PredictionStore | None) -> None:
        """Pack the records, and remove the predictions of tiles if all bands are done.

        ``tiles`` is their output; None if there is none.
        """
        self.store.compact()
        if self.is_complete and tiles is not None:
            tiles.clear(Progress(np.zeros(tiles.layout.blocks, np.bool_), {}, {}, {}))
            remove_former_tiles(self.config.output)

    @property
    def _looked_at(self) -> InputState:
        if self._state is None:
            raise OutputError(f"{self.config.output} was not looked at yet: look first")
        return self._state

    def _rows_of(self, band: int) -> tuple[int, int]:
        return self._layout.rows_of(band) or (0, 1)

    def _blocks_of(self, band: int, layout: BlockLayout) -> range:
        """Return the blocks of tiles that a band needs."""
        image, _ = self._layout.bounds(band)
        tiles = self._assembly.tiles(image, *self._rows_of(band))
        return range(layout.block_of(tiles.start), layout.block_of(tiles.stop - 1) + 1)

    def _details(self, band: int, plan: Plan) -> dict[str, Json]:
        """Return what the record of a band says of how, and from what, it was made."""
        details: dict[str, Json] = {"made": how_made(plan), INPUT: self._inputs[band].as_json()}
        if band in self._counters.absent:
            details[ABSENT] = self._counters.absent[band].as_json()
        return details


def _discard_damaged(tiles: PredictionStore, blocks: range) -> None:
    """Mark the blocks of tiles that cannot be read, so that the next run makes them again."""
    for block in blocks:
        try:
            tiles.read(block)
        except DamageError as error:
            tiles.discard([block], f"damaged: {error}")


def _labels(source: ImageSource, grid: TileGrid) -> Iterator[Coordinate]:
    """Yield the coordinates of a grid of tiles: their centres, and their first pixels.

    Centres are those of the images' own coordinates where these are numbers, else in pixels.
    """
    space = dict(zip(source.spatial_dims, grid.image, strict=True))
    own = {found.name: found for found in source.coordinates(space) if found.dims == (found.name,)}
    for axis, name in enumerate(source.spatial_dims):
        starts = np.array(grid.starts[axis], np.int64)
        last = starts + grid.tile[axis] - 1
        found = own.get(name)
        values: NDArray[Any] = np.arange(grid.image[axis])
        attributes: dict[str, Json] = {}
        if found is not None and found.values.dtype.kind in "iuf":
            values, attributes = found.values, dict(found.attributes)
        centres = (values[starts].astype(np.float64) + values[last]) / 2
        yield Coordinate(tile_dim(name), tile_dim(name), centres, attributes)
        yield Coordinate(f"{tile_dim(name)}_start", tile_dim(name), starts)
