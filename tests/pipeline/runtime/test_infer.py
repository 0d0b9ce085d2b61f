"""Arrays in, lazy arrays out: names, coordinates, batches, any scheduler."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import torch
import xarray as xr
import zarr
from dask.callbacks import Callback
from distributed import Client, LocalCluster
from numpy.typing import NDArray

from fcdcc.coding.errors import FcdccError
from fcdcc.pipeline import JobConfig, Model, Plan, infer, open_model, plan
from fcdcc.pipeline.anyk import AnyK, anyk_report
from fcdcc.pipeline.anyk.keys import parse_key
from fcdcc.pipeline.anyk.scheduler import dask_contract
from fcdcc.pipeline.errors import OptionError, PlanError
from fcdcc.pipeline.runtime.job_plan import preview_job
from fcdcc.storage import InputError
from support.small import SHAPE, Files, make_files

Pixels = NDArray[np.float32]


class Dense(torch.nn.Module):
    """A prediction for every pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(1, 4, 3, padding=1)
        self.last = torch.nn.Conv2d(4, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.first(x)))


def exported(module: torch.nn.Module, example: torch.Tensor, folder: Path, fixed: bool) -> Model:
    shapes = None if fixed else ({0: torch.export.Dim("batch")},)
    program = torch.export.export(module.eval(), (example,), dynamic_shapes=shapes)
    torch.export.save(program, folder / "model.pt2")
    return open_model(folder / "model.pt2")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return open_model(make_files(tmp_path_factory.mktemp("small")).model)


@pytest.fixture(scope="module")
def pixels() -> Pixels:
    return np.random.default_rng(2).random((11, *SHAPE), dtype=np.float32)


@pytest.fixture(scope="module")
def expected(model: Model, pixels: Pixels) -> Pixels:
    from fcdcc.pipeline.model.interpreter import run_network

    return run_network(model.network, torch.from_numpy(pixels)).numpy()


def assert_close(made: Any, expected: Any) -> None:
    error = np.linalg.norm(np.asarray(made) - expected) / np.linalg.norm(expected)
    assert error < 1e-5


@pytest.mark.parametrize("kind", ["numpy", "dask", "xarray", "channels last", "named"])
def test_every_kind_of_array(model: Model, pixels: Pixels, expected: Pixels, kind: str) -> None:
    images: Any = {
        "numpy": pixels,
        "dask": da.from_array(pixels, chunks=(5, 2, 16, 7)),
        "xarray": xr.DataArray(pixels, dims=("n", "c", "y", "x")),
        "channels last": pixels.transpose(0, 2, 3, 1),
        "named": xr.DataArray(pixels.transpose(0, 2, 3, 1), dims=("time", "y", "x", "band")),
    }[kind]
    made = infer(model, images, batch=4)
    assert isinstance(made.data, da.Array)
    assert made.dims == (images.dims[0] if kind == "named" else "n", "class")
    assert made.chunks[0] == (4, 4, 3)
    assert_close(made.compute(scheduler="synchronous"), expected)


def test_what_is_stored_is_read_when_it_is_computed(
    model: Model, pixels: Pixels, expected: Pixels, tmp_path: Path
) -> None:
    group = zarr.open_group(tmp_path / "i.zarr", mode="w")
    stored = group.create_array(
        "image", shape=pixels.shape, chunks=(4, *SHAPE), dtype="float32", dimension_names="ncyx"
    )
    names = group.create_array("image_id", data=np.arange(11) * 7, dimension_names=["n"])
    assert names.shape == (11,)
    with xr.open_zarr(tmp_path / "i.zarr", consolidated=False, chunks=None) as dataset:
        kinds: dict[str, Any] = {
            "path": tmp_path / "i.zarr",
            "path of an array": str(tmp_path / "i.zarr" / "image"),
            "Zarr array": stored,
            "Dataset": dataset,
            "DataArray": dataset["image"],
        }
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "chunks of the images")  # there are none yet
            lazy = {kind: infer(model, images, batch=4) for kind, images in kinds.items()}
        stored[...] = pixels  # nothing was read before
        for kind, made in lazy.items():
            assert made.dims == ("n", "class"), kind
            assert made.chunks[0] == (4, 4, 3), kind
            assert_close(made.compute(scheduler="synchronous"), expected)
    for kind in ("path", "Dataset", "DataArray"):
        if "image_id" in lazy[kind].coords:
            assert lazy[kind]["image_id"].values.tolist() == [7 * i for i in range(11)]
    assert "image_id" in lazy["path"].coords
    assert infer(model, tmp_path / "i.zarr", limit=3).shape == (3, 10)
    assert plan(model, tmp_path / "i.zarr", batch=5).batch == 5


def test_tensors_are_taken_as_they_are(model: Model, pixels: Pixels, expected: Pixels) -> None:
    tensor = torch.from_numpy(pixels)
    for images in (tensor, tensor.clone().requires_grad_(), tensor.permute(0, 2, 3, 1)):
        assert_close(infer(model, images).compute(scheduler="synchronous"), expected)
    half = tensor.bfloat16()
    made = infer(model, half).compute(scheduler="synchronous")
    assert_close(made, infer(model, half.float()).compute(scheduler="synchronous"))


def test_arrays_of_a_dataset_are_chosen_by_name(
    model: Model, pixels: Pixels, expected: Pixels
) -> None:
    dims = ("time", "y", "x")
    bands = xr.Dataset({f"B{n}": (dims, pixels[:, n]) for n in range(3)})
    both = xr.Dataset(
        {
            "cloud": (("time",), np.zeros(11)),
            "scenes": (("time", "c", "y", "x"), pixels),
        }
    )
    for images, options in (
        (both, {}),
        (both.assign(image=both["scenes"] + 1), {"input_array": "scenes"}),
        (bands, {"input_array": "B0,B1,B2"}),
        (bands, {"input_array": ["B2", "B0", "B1"], "channels": ["B0", "B1", "B2"]}),
    ):  # fmt: skip
        made = infer(model, images, **options)  # type: ignore[arg-type]
        assert made.dims == ("time", "class")
        assert_close(made.compute(scheduler="synchronous"), expected)


def test_labels_of_several_levels_are_kept(model: Model, pixels: Pixels, expected: Pixels) -> None:
    images = xr.DataArray(pixels, dims=("n", "c", "y", "x"))
    images = images.assign_coords(site=("n", np.arange(11) // 4), shot=("n", np.arange(11) % 4))
    made = infer(model, images.set_index(n=["site", "shot"]))
    assert_close(made.sel(site=1, shot=2).compute(scheduler="synchronous"), expected[6])


def test_masked_values_are_missing_values(model: Model, pixels: Pixels) -> None:
    masked = np.ma.masked_array(pixels, mask=np.zeros(pixels.shape, bool))
    masked[3, 0, 0, 0] = np.ma.masked
    for images in (masked, da.from_array(masked, chunks=(5, *SHAPE))):
        made = infer(model, images, batch=1).compute(scheduler="synchronous").values
        assert np.isnan(made).any(axis=1).tolist() == [i == 3 for i in range(11)]


@pytest.mark.parametrize("scheduler", ["synchronous", "threads", "processes"])
def test_every_scheduler(model: Model, pixels: Pixels, expected: Pixels, scheduler: str) -> None:
    assert_close(infer(model, pixels, batch=8).compute(scheduler=scheduler), expected)


def warnings_of(model: Model, images: Any, **options: Any) -> list[str]:
    """Return what `infer` warns of; each warning names the line that called it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        infer(model, images, **options)
    assert all(warning.filename == __file__ for warning in caught)
    return [str(warning.message) for warning in caught]


def test_an_implausible_range_is_named(model: Model, tmp_path: Path) -> None:
    values = np.random.default_rng(1).integers(0, 65536, (8, *SHAPE), dtype=np.uint16)
    group = zarr.open_group(tmp_path / "i.zarr", mode="w")
    stored = group.create_array("image", data=values, dimension_names="ncyx")
    named = xr.DataArray(values, dims=("n", "c", "y", "x"))
    for images in (tmp_path / "i.zarr", stored, values, named, named.to_dataset(name="image")):
        [text] = warnings_of(model, images)
        assert re.search(r'uint16 and are not scaled.*give scale="max"', text)
        assert warnings_of(model, images, scale="max") == []
    floats = (values >> 8).astype(np.float32)
    [text] = warnings_of(model, torch.from_numpy(floats), mean=0.5)
    assert re.search("values up to 255.*give scale=255", text)
    assert warnings_of(model, torch.from_numpy(floats), mean=0.5, scale=255) == []
    assert warnings_of(model, da.from_array(values, chunks=(4, *SHAPE))) == []


def test_chunks_that_are_not_stored_are_named(model: Model, tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "i.zarr", mode="w")
    stored = group.create_array(
        "image", shape=(8, *SHAPE), chunks=(4, *SHAPE), dtype="uint8", dimension_names="ncyx"
    )
    stored[4:] = 200
    for images in (tmp_path / "i.zarr", stored):
        [text] = warnings_of(model, images)
        assert "1 of 2 chunks is not stored and is read as the fill value" in text
    stored[:4] = 100
    for images in (tmp_path / "i.zarr", stored):
        assert warnings_of(model, images) == []


def test_images_that_cannot_be_looked_at_are_left_to_their_blocks(
    model: Model, tmp_path: Path
) -> None:
    group = zarr.open_group(tmp_path / "i.zarr", mode="w")
    stored = group.create_array("image", data=np.ones((4, *SHAPE), np.uint16))
    (tmp_path / "i.zarr/image/c/0/0/0/0").write_bytes(b"no chunk")
    for images in (tmp_path / "i.zarr", stored):
        assert warnings_of(model, images) == []
        with pytest.raises((InputError, RuntimeError)):
            infer(model, images).compute(scheduler="synchronous")


def test_errors_name_keywords(model: Model, pixels: Pixels, tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "five.zarr", mode="w")
    group.create_array("image", shape=(4, 5, *SHAPE[1:]), dtype="uint8", dimension_names="ncyx")
    job = {"model": "m.pt2", "input": "i.zarr", "output": tmp_path / "o.zarr"}
    calls: dict[str, Callable[[], object]] = {
        "tolerate=6 of n=6": lambda: JobConfig(**job, n=6, tolerate=6),
        "input is needed": lambda: JobConfig(model="m.pt2", output="o.zarr"),
        "^store was given as": lambda: JobConfig(**job, store="top"),
        "^in_fligth: there is no such option": lambda: JobConfig(**job, in_fligth=2),
        "^in_flight was given as 0": lambda: plan(model, pixels, in_flight=0),
        'verify="all".*redundancy="off"': lambda: infer(
            model, pixels, verify="all", redundancy="off"
        ),
        'take code="systematic", or split="rows"': lambda: plan(
            model, pixels, split="images", code="crme", n=6, tolerate=2
        ),
        'channels="0,1,2"': lambda: plan(model, tmp_path / "five.zarr"),
        "mean has 2 numbers.*give one number or 3": lambda: infer(model, pixels, mean=(1, 2)),
    }
    for words, call in calls.items():
        with pytest.raises(FcdccError, match=words) as caught:
            call()
        assert "--" not in str(caught.value), words


def test_nothing_runs_before_it_is_asked_for(model: Model) -> None:
    def never(block: Any) -> Any:
        raise AssertionError("ran")

    images = da.zeros((8, *SHAPE), chunks=4).map_blocks(never, dtype="float32", meta=np.empty(0))
    infer(model, images, batch=4)


def test_coordinates_that_fit_are_kept(model: Model, pixels: Pixels) -> None:
    images = xr.DataArray(
        pixels,
        dims=("n", "c", "y", "x"),
        coords={"image_id": ("n", np.arange(11) * 7), "y": np.arange(16) / 2, "place": "here"},
    )
    made = infer(model, images)
    assert made["image_id"].values.tolist() == [7 * i for i in range(11)]
    assert made["place"].item() == "here"
    assert "y" not in made.coords


def test_dense_predictions_have_the_names_of_space(tmp_path: Path) -> None:
    module = Dense()
    images = torch.rand(5, 1, 12, 10)
    model = exported(module, images[:2], tmp_path, fixed=False)
    data = xr.DataArray(
        images.numpy(), dims=("n", "c", "lat", "lon"), coords={"lat": np.linspace(50, 51, 12)}
    )
    made = infer(model, data, batch=2)
    assert made.dims == ("n", "class", "lat", "lon")
    assert made.shape == (5, 2, 12, 10)
    np.testing.assert_array_equal(made["lat"], data["lat"])
    with torch.inference_mode():
        assert_close(made.compute(), module(images).numpy())


def test_a_fixed_batch_runs_in_blocks_of_any_size(tmp_path: Path) -> None:
    module = Dense()
    images = torch.rand(5, 1, 12, 10)
    model = exported(module, images[:2], tmp_path, fixed=True)
    for batch, chunks in ((None, (5,)), (3, (3, 2))):
        made = infer(model, images.numpy(), batch=batch)
        assert made.chunks[0] == chunks
        with torch.inference_mode():
            assert_close(made.compute(), module(images).numpy())


def test_preparation_is_that_of_the_command_line(model: Model, expected: Pixels) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (4, *SHAPE), dtype=np.uint8)
    made = infer(model, pixels, mean=0.5, std=(0.2, 0.3, 0.4)).compute()
    prepared = (pixels / np.float32(255) - 0.5) / np.reshape([0.2, 0.3, 0.4], (3, 1, 1))
    again = infer(model, prepared.astype(np.float32)).compute()
    assert_close(made, again.values)


def test_a_plan_can_be_made_saved_and_given(model: Model, pixels: Pixels) -> None:
    made = plan(model, pixels, n=5, tolerate=1, batch=3)
    assert (made.n, made.tolerate, made.batch) == (5, 1, 3)
    again = Plan.from_json(made.to_json())
    assert again == made
    assert infer(model, pixels, plan=again).chunks[0] == (3, 3, 3, 2)
    with pytest.raises(OptionError, match="n given together with plan"):
        infer(model, pixels, plan=made, n=6)


def test_a_plan_of_another_model_is_refused(model: Model, pixels: Pixels, tmp_path: Path) -> None:
    other = exported(Dense(), torch.rand(2, 1, 12, 10), tmp_path, fixed=False)
    with pytest.raises(PlanError, match="another model"):
        infer(other, np.zeros((2, 1, 12, 10)), plan=plan(model, pixels))
    small = plan(other, np.zeros((2, 1, 12, 10)))
    with pytest.raises(PlanError, match=r"\(1, 12, 10\).*\(1, 16, 16\)"):
        infer(other, np.zeros((2, 1, 16, 16)), plan=small)


def test_images_that_do_not_fit(model: Model) -> None:
    with pytest.raises(PlanError, match=r"\(3, 20, 20\).*\(3, 16, 16\)"):
        infer(model, np.zeros((2, 3, 20, 20)))
    with pytest.raises(PlanError, match="one to three spatial axes"):
        infer(model, np.zeros((2, 3)))


def test_optimisation_leaves_shares_and_nodes_alone(model: Model, pixels: Pixels) -> None:
    made = infer(model, pixels, batch=4, code="crme", n=6, tolerate=2)
    (optimised,) = dask.optimize(made.data)
    graph = dict(optimised.__dask_graph__())
    nodes = [task for task in graph.values() if isinstance(task, AnyK)]
    assert len(nodes) == 2 * 3
    for node in nodes:
        assert len(node.shares) == 6
        parsed = [parse_key(key) for key in node.shares.values()]
        assert all(key is not None and key.stage == "share" for key in parsed)


@pytest.mark.parametrize(("cores", "shares"), [(1, (1, 0)), (3, (3, 1)), (64, (6, 2))])
def test_without_a_client_n_is_chosen_for_the_cores(
    model: Model,
    pixels: Pixels,
    expected: Pixels,
    monkeypatch: pytest.MonkeyPatch,
    cores: int,
    shares: tuple[int, int],
) -> None:
    monkeypatch.setattr("dask.system.CPU_COUNT", cores)
    made = plan(model, pixels, n="auto")
    assert (made.n, made.tolerate) == shares
    assert_close(infer(model, pixels).compute(scheduler="threads"), expected)
    assert plan(model, pixels, n=5, tolerate=1).n == 5
    if cores == 1:
        with pytest.raises(OptionError, match="with 1 worker none may be lost"):
            plan(model, pixels, verify="all")


@pytest.mark.parametrize("chunks", [3, 50])
def test_without_a_client_the_blocks_are_those_of_the_command(
    files: Files, monkeypatch: pytest.MonkeyPatch, chunks: int
) -> None:
    monkeypatch.setattr("dask.system.CPU_COUNT", 3)
    job = JobConfig.of(model=files.model, input=files.images, output="-", progress=False)
    by_command = preview_job(job).plan
    images = xr.open_zarr(files.images, consolidated=False)["image"].chunk(n=chunks)
    made = plan(open_model(files.model), images)
    assert replace(made, forecast=None) == replace(by_command, forecast=None)
    assert made.batch_reason == by_command.batch_reason


def test_a_plan_says_which_workers_its_blocks_are_for(
    model: Model, pixels: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it is for others than those of `fcdcc plan`, and the number of images was chosen."""
    monkeypatch.setattr("dask.system.CPU_COUNT", 3)
    said = "; for 5 workers, one for each share, and fcdcc plan takes 3 workers)"
    assert said in str(plan(model, pixels, n=5, tolerate=1))
    assert "fcdcc plan takes" not in plan(model, pixels, n=3, tolerate=1).batch_reason
    assert plan(model, pixels, n=5, tolerate=1, batch=4).batch_reason == "as given"


class Here(Callback):
    """Notes the stages of tasks that Dask's schedulers compute in this process."""

    def __init__(self) -> None:
        super().__init__()
        self.stages: list[str] = []

    def _pretask(self, key: Any, *_: Any) -> None:
        found = parse_key(key)
        if found is not None:
            self.stages.append(found.stage)


def test_without_a_client_this_process_computes_all_shares(
    model: Model, pixels: Pixels, expected: Pixels
) -> None:
    with Here() as here:
        assert_close(infer(model, pixels, batch=4, n=6, tolerate=2).compute(), expected)
    shares = [stage for stage in here.stages if stage in ("share", "parity")]
    blocks = 3
    assert (shares.count("share"), shares.count("parity")) == (4 * blocks, 2 * blocks)


def test_a_plan_says_what_is_computed_without_a_client(model: Model, pixels: Pixels) -> None:
    made = plan(model, pixels, n=6, tolerate=2)
    shown = made._repr_html_()
    for text in (str(made), shown):
        assert "there is no current Dask Client" in text
        assert "infer() computes all 6 shares of a layer, parity too" in text
        assert "50 % more arithmetic than 4 shares take" in text
    with Here() as here:
        infer(model, pixels, n=1).compute()  # what it advises
    assert "parity" not in here.stages
    assert "no current Dask Client" not in str(plan(model, pixels, n=1))


@pytest.mark.cluster
def test_a_plan_for_a_cluster_does_not_speak_of_what_is_done_without_one(
    client: Client, model: Model, pixels: Pixels
) -> None:
    made = plan(model, pixels)
    assert made.tolerate == 2
    assert "no current Dask Client" not in str(made)


@pytest.mark.cluster
def test_on_a_cluster_n_is_chosen_for_its_workers(
    client: Client, model: Model, pixels: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dask.system.CPU_COUNT", 3)
    assert (plan(model, pixels).n, plan(model, pixels).tolerate) == (6, 2)
    said = "; for 6 workers of the current client, and fcdcc plan takes 3 workers)"
    assert said in str(plan(model, pixels))


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with (
        LocalCluster(
            n_workers=6, processes=False, threads_per_worker=1, dashboard_address=":0"
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


@pytest.mark.cluster
def test_with_a_client_its_cluster_computes(
    client: Client, model: Model, pixels: Pixels, expected: Pixels
) -> None:
    with Here() as here:
        assert_close(infer(model, pixels, batch=4).compute(), expected)
    assert here.stages == []


@pytest.mark.cluster
def test_on_a_cluster_layers_do_not_wait_for_all_shares(
    client: Client, model: Model, pixels: Pixels, expected: Pixels
) -> None:
    made = infer(model, pixels, batch=4, code="crme")
    assert_close(made.compute(), expected)
    runs = {key.run for name in made.data.dask if (key := parse_key(name)) is not None}
    (run,) = runs
    report = anyk_report(client, run)
    assert report["counters"]["groups"] == 2 * 3
    assert report["failures"] == []


@pytest.mark.cluster
def test_where_the_scheduler_refuses_the_plugin_a_warning_says_so(
    model: Model, pixels: Pixels, expected: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dask_contract, "breaches", lambda: ["it is another"])
    with (
        LocalCluster(n_workers=1, processes=False, dashboard_address=":0") as cluster,
        Client(cluster),
    ):
        with pytest.warns(UserWarning, match=r"cannot be registered on inproc.*it is another"):
            made = infer(model, pixels, batch=4)
        assert_close(made.compute(), expected)


def test_what_a_message_says_to_do_is_done(
    model: Model, pixels: Pixels, expected: Pixels, tmp_path: Path
) -> None:
    dims = ("n", "c", "y", "x")
    group = zarr.open_group(tmp_path / "i.zarr", mode="w")
    group.create_array("image", data=pixels, dimension_names=dims)
    bands = xr.Dataset({f"B{n}": (("n", "y", "x"), pixels[:, n]) for n in range(3)})
    selected = da.from_array(pixels, chunks=(4, *SHAPE))
    selected = selected[selected[:, 0, 0, 0] >= 0]
    named = xr.DataArray(selected, dims=dims)
    small = plan(model, pixels, batch=3)

    def sizes_computed(array: da.Array, images: Any) -> Any:
        array.compute_chunk_sizes()
        return images

    def stack(images: Any) -> Any:
        return np.stack(list(images))

    refused: dict[str, tuple[Any, dict[str, Any], str, Callable[[], Any], dict[str, Any]]] = {
        "group": (group, {}, r"images\['image'\]", lambda: group["image"], {}),
        "group by path": (group, {}, "give its path", lambda: tmp_path / "i.zarr", {}),
        "list": ([*pixels], {}, r"numpy\.stack\(list", lambda: stack([*pixels]), {}),
        "iterator": (iter(pixels), {}, r"numpy\.stack\(list", lambda: stack(iter(pixels)), {}),
        "array-like": (
            ArrayLike(pixels), {}, r"give dask\.array\.from_array\(images\)",
            lambda: da.from_array(ArrayLike(pixels)), {},
        ),
        "sparse tensor": (
            torch.from_numpy(pixels).to_sparse(), {}, r"give images\.to_dense\(\)",
            lambda: torch.from_numpy(pixels).to_sparse().to_dense(), {},
        ),
        "name of an array": (
            pixels, {"input_array": "image"}, "leave input_array out", lambda: pixels, {}
        ),
        "several arrays": (
            bands, {}, r"3 arrays.*name the one to read \(input_array\), or several",
            lambda: bands, {"input_array": ["B0", "B1", "B2"]},
        ),
        "two arrays": (
            bands, {"input_array": "B0,B1"}, r"give as many \(channels, input_array\)",
            lambda: bands, {"input_array": "B0,B1,B2"},
        ),
        "option of a plan": (pixels, {"plan": small, "batch": 4}, "leave one", lambda: pixels,
                             {"plan": small}),
        "unknown sizes of a Dask array": (
            selected[selected[:, 0, 0, 0] >= 0], {}, r"call images\.compute_chunk_sizes\(\)",
            lambda: sizes_computed(array := selected[selected[:, 0, 0, 0] >= 0], array), {},
        ),
        "unknown sizes of a DataArray": (
            named, {}, r"call images\.data\.compute_chunk_sizes\(\) first",
            lambda: sizes_computed(named.data, named), {},
        ),
    }  # fmt: skip
    for case, (images, options, words, mended, others) in refused.items():
        with pytest.raises((InputError, OptionError), match=words):
            infer(model, images, **options)
        made = infer(model, mended(), **others).compute(scheduler="synchronous")
        np.testing.assert_allclose(made, expected, atol=1e-4, err_msg=case)


class ArrayLike:
    """What looks like an array and is none that is known, as h5py's."""

    def __init__(self, values: Pixels) -> None:
        self.values, self.shape, self.dtype = values, values.shape, values.dtype
        self.ndim = values.ndim

    def __getitem__(self, part: Any) -> Pixels:
        return self.values[part]
