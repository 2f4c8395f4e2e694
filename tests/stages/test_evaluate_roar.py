"""A retrained cell: what the network sees, what is written, the bugs of the original that it must not have."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from roarline.artifacts.maps import MapRows
from roarline.artifacts.retraining import CELL_FILE, PREDICTIONS_FILE, RetrainedCell
from roarline.artifacts.store import Artifact
from roarline.artifacts.tables import read_csv, read_parquet
from roarline.errors import ArtifactError, DataError
from roarline.stages import evaluate_roar, splits
from roarline.training import checkpoint
from tests.stages.toy_retraining import COUNTS, SIDE, TRAINING, Toy, new_toy, patch_maps, random_maps
from tests.stages.watching_network import MODEL, SEEN

PIXELS = SIDE**2
BLACK = {"fill": "zero"}


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch):
    """Each test starts as a fresh worker process does."""
    monkeypatch.setattr(evaluate_roar, "_images", type(evaluate_roar._images)())
    monkeypatch.setattr(evaluate_roar, "_ranks", type(evaluate_roar._ranks)())
    SEEN.clear()


@pytest.fixture
def toy(tmp_path) -> Toy:
    return new_toy(tmp_path / "artifacts")


def cell_of(artifact: Artifact) -> RetrainedCell:
    return RetrainedCell.read(artifact.file(CELL_FILE))


def predictions_of(artifact: Artifact) -> dict[str, list]:
    return read_parquet(artifact.file(PREDICTIONS_FILE))


def watched(toy: Toy, maps=None, **changes) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
    """One epoch: training batches, the validation images, the test images."""
    SEEN.clear()
    toy.run(toy.cell(maps, **{"model": MODEL, "training": {**TRAINING, "epochs": 1}, **changes}))
    tried, validation, test = SEEN.evaluated_on  # the network is tried once with a black image when it is built
    assert (len(tried), len(validation), len(test)) == (1, COUNTS["validation"], COUNTS["test"])
    return list(SEEN.trained_on), validation, test


def test_removed_pixels_are_exactly_the_count_in_every_split_and_the_rest_is_untouched(toy):
    maps = toy.publish_maps("patch")
    plain = watched(toy)
    for fraction, count in ((0.0, 0), (0.1, 3), (0.5, 18), (1.0, 36)):
        altered = watched(toy, maps, removed_fraction=fraction, **BLACK)
        black = float(torch.cat(plain[0]).min())  # only an upper bound: black pixels don't occur in the toy's images
        for before, after in (
            (torch.cat(plain[0]), torch.cat(altered[0])),
            (plain[1], altered[1]),
            (plain[2], altered[2]),
        ):
            changed = (before != after).any(1)
            assert changed.flatten(1).sum(1).unique().tolist() == [count]
            values = after.permute(0, 2, 3, 1)[changed]
            assert len(values.unique()) <= 1
            assert (values < black).all()


def test_roar_takes_the_patch_and_kar_keeps_it(toy):
    maps = toy.publish_maps("patch")
    _, _, before = watched(toy)
    labels = toy.content.labels[toy.rows("test")]
    patch = torch.zeros(len(labels), SIDE, SIDE, dtype=torch.bool)
    patch[labels == 0, :2, :2] = True
    patch[labels == 1, -2:, -2:] = True
    for mode, expected in (("roar", patch), ("kar", ~patch)):
        share = 4 / PIXELS if mode == "roar" else 32 / PIXELS
        _, _, after = watched(toy, maps, mode=mode, removed_fraction=share, **BLACK)
        assert torch.equal((before != after).any(1), expected)


def test_original_roar_bug_removing_nothing_removes_everything(toy):
    """`[-0:]`: fraction 0, and any fraction below one pixel, must equal the reference; `original` repeats the bug."""
    maps = toy.publish_maps("patch")
    reference = toy.run(toy.cell())
    for fraction in (0.0, 0.9 / PIXELS):
        nothing = toy.run(toy.cell(maps, removed_fraction=fraction))
        assert predictions_of(nothing) == predictions_of(reference)
        assert read_csv(nothing.file("curve.csv")) == read_csv(reference.file("curve.csv"))
        assert cell_of(nothing).removed_pixels == 0
    original = toy.run(toy.cell(maps, removed_fraction=0.0, compat="original"))
    assert cell_of(original).removed_pixels == PIXELS
    assert cell_of(toy.run(toy.cell(maps, mode="kar", removed_fraction=0.0, compat="original"))).removed_pixels == 0


def test_original_roar_bug_keep_10_removes_10_percent_and_says_so(toy):
    """KAR's fraction is what is removed, of the least relevant; the name says it and the count is exact."""
    maps = toy.publish_maps("patch")
    _, _, before = watched(toy)
    _, _, after = watched(toy, maps, mode="kar", removed_fraction=0.1, **BLACK)
    ranks = torch.from_numpy(patch_maps(toy.content, toy.rows("test"))).flatten(1).argsort(1)  # toy maps have no ties
    expected = torch.zeros(len(before), PIXELS, dtype=torch.bool).scatter_(1, ranks[:, :3], True)
    assert torch.equal((before != after).any(1).flatten(1), expected)


@pytest.mark.parametrize("fill", ["mean", "zero"])
def test_original_roar_bug_the_fill_differs_between_training_and_evaluation(toy, fill):
    """One value in all three splits, exactly 0 for the mean in normalised space; `original` repeats the 8-bit cut."""
    maps = toy.publish_maps("patch")
    everything = {"removed_fraction": 1.0, "fill": fill}
    trained_on, validation, test = watched(toy, maps, **everything)
    values = {float(v) for images in (*trained_on, validation, test) for v in images.unique()}
    assert len(values) == 1
    if fill == "mean":
        assert values == {0.0}
        trained_on, validation, test = watched(toy, maps, **everything, compat="original")
        mean, std = float(toy.content.mean[0]), float(toy.content.std[0])
        assert float(torch.cat(trained_on).unique()) == pytest.approx(
            (np.floor(mean * 255) / 255 - mean) / std, rel=1e-5
        )
        assert torch.cat([validation, test]).unique().tolist() == [0.0]


def test_the_fill_is_the_mean_of_the_training_split_whatever_the_normalisation(toy):
    maps = toy.publish_maps("patch")
    _, _, test = watched(toy, maps, removed_fraction=1.0, normalization={"mean": [0.5], "std": [0.25]})
    assert float(test.unique()) == pytest.approx((float(toy.content.mean[0]) - 0.5) / 0.25, rel=1e-6)


def test_the_blur_fill_is_each_images_own(toy):
    maps = toy.publish_maps("patch")
    _, _, before = watched(toy)
    _, _, after = watched(toy, maps, removed_fraction=1.0, fill="blur")
    assert len(after.unique()) > len(after)
    torch.testing.assert_close(
        after.mean((1, 2, 3)), before.mean((1, 2, 3)), atol=0.15, rtol=0
    )  # blurring keeps the mean, but at the border
    assert (after.flatten(1).std(1) < before.flatten(1).std(1)).all()


def test_a_constant_fill_is_the_same_colour_in_every_split(toy):
    maps = toy.publish_maps("patch")
    fill = {"kind": "constant", "value": [0.25]}
    trained_on, validation, test = watched(
        toy, maps, removed_fraction=1.0, fill=fill, normalization={"mean": [0.5], "std": [0.5]}
    )
    for images in (*trained_on, validation, test):
        assert images.unique().tolist() == [-0.5]  # (0.25 - 0.5) / 0.5, exactly


def test_uniform_noise_is_each_samples_own_whatever_is_removed_from_it(toy):
    """Of every split, the same for every method; batches have shuffled the training images."""
    patch, noise = toy.publish_maps("patch"), toy.publish_maps("noise", random_maps)
    everything = {"removed_fraction": 1.0, "fill": "uniform_noise", "normalization": {"mean": [0.0], "std": [1.0]}}
    one, other = (watched(toy, maps, **everything) for maps in (patch, noise))
    for first, second in zip((*one[0], *one[1:]), (*other[0], *other[1:]), strict=True):
        assert torch.equal(first, second)
        assert len(first.flatten(1).unique(dim=0)) == len(first)
        assert 0 <= first.min() < 0.1 < 0.9 < first.max() < 1


def test_original_roar_bug_seeds_cells_of_one_repeat_share_weights_and_batches_and_repeats_differ(toy):
    patch, noise = toy.publish_maps("patch"), toy.publish_maps("noise", random_maps)
    reference, *_ = watched(toy)
    weights = [SEEN.first_weights[0]]
    cells = [
        {"maps": patch}, {"maps": noise}, {"maps": patch, "mode": "kar"}, {"maps": patch, "removed_fraction": 0.5},
        {"maps": patch, "probe": True},
    ]  # fmt: skip
    for cell in cells:
        trained_on, *_ = watched(toy, **cell)
        weights.append(SEEN.first_weights[0])
        if not cell.get("probe"):
            for before, after in zip(reference, trained_on, strict=True):
                untouched = (before == after).all(1).flatten(1).float().mean(1)
                assert (untouched > 0.05).all()  # the same images, in the same order: what was not removed is equal
    assert all(torch.equal(weights[0], other) for other in weights[1:])
    repeated, *_ = watched(toy, repeat=1)
    assert not torch.equal(SEEN.first_weights[0], weights[0])
    assert not torch.equal(torch.cat(repeated), torch.cat(reference))
    watched(toy, seed=1)
    assert not torch.equal(SEEN.first_weights[0], weights[0])


def test_original_roar_bug_results_are_printed_and_not_saved(toy):
    artifact = toy.run(toy.cell(toy.publish_maps("patch")))
    cell, rows = cell_of(artifact), predictions_of(artifact)
    assert rows["sample_id"] == [toy.content.sample_ids[row] for row in toy.rows("test")]
    assert rows["label"] == toy.content.labels[toy.rows("test")].tolist()
    assert rows["correct"] == [float(a == b) for a, b in zip(rows["label"], rows["predicted"], strict=True)]
    assert cell.test_accuracy == pytest.approx(sum(rows["correct"]) / cell.n_test)
    curve = read_csv(artifact.file("curve.csv"))
    assert [int(epoch) for epoch in curve["epoch"]] == [1, 2, 3]
    assert cell.validation_accuracy == float(curve["validation_accuracy"][cell.best_epoch - 1])
    assert cell.validation_accuracy == max(map(float, curve["validation_accuracy"]))
    assert cell.place.model_dump() == {"mode": "roar", "removed_fraction": 4 / PIXELS, "repeat": 0, "probe": False}
    assert json.loads(artifact.file(CELL_FILE).read_text())["removed_pixels"] == 4


def test_road_evaluation_bug_the_best_test_epoch_is_reported(toy):
    """peers.md; here the test images are seen once, after the last epoch."""
    toy.run(toy.cell(model=MODEL))
    sizes = [len(images) for images in SEEN.evaluated_on[1:]]
    assert sizes == [COUNTS["validation"]] * TRAINING["epochs"] + [COUNTS["test"]]


def test_augmentation_comes_after_removal(toy):
    """A crop moves the removed pixels along with the image, and the border it brings in is zero, not the fill."""
    maps = toy.publish_maps("patch")
    removed = torch.cat(watched(toy, maps, removed_fraction=0.25, **BLACK)[0])
    changes = {**TRAINING, "epochs": 1, "augmentation": {"crop_padding_px": 2}}
    cropped, validation, _ = watched(toy, maps, removed_fraction=0.25, training=changes, **BLACK)
    padded = F.pad(removed, [2] * 4)
    crops = torch.stack(
        [padded[:, :, top : top + SIDE, left : left + SIDE] for top in range(5) for left in range(5)], 1
    )  # [N, 25, 3, H, W]; augmentation draws after the batch order, so that the order of images is the same
    found = (crops == torch.cat(cropped)[:, None]).flatten(2).all(2)
    assert found.any(1).all()
    assert (torch.cat(cropped) == 0).any()
    assert not (validation == 0).any()


def test_perfect_maps_remove_what_the_class_is_told_by_and_roar_accuracy_falls(toy):
    """The patch is filled with the surroundings' own mean for both classes, by removing both patches' places."""

    def both_places(content, rows):
        maps = np.random.default_rng(3).random((len(rows), SIDE, SIDE)).astype(np.float32)
        maps[:, :2, :2] += 1
        maps[:, -2:, -2:] += 1
        return maps

    training = {**TRAINING, "epochs": 8}
    perfect = toy.publish_maps("both places", both_places)
    gone = cell_of(toy.run(toy.cell(perfect, removed_fraction=8 / PIXELS, training=training)))
    kept = cell_of(toy.run(toy.cell(perfect, mode="kar", removed_fraction=28 / PIXELS, training=training)))
    intact = cell_of(toy.run(toy.cell(training=training)))
    assert intact.test_accuracy > 0.9
    assert kept.test_accuracy > 0.9
    assert gone.test_accuracy < 0.8


def test_the_leakage_probe_reads_the_class_off_masks_that_encode_it_and_nothing_off_random_ones(tmp_path):
    toy = new_toy(tmp_path, counts={"train": 200, "validation": 60, "test": 200})
    telling, silent = toy.publish_maps("telling"), toy.publish_maps("silent", random_maps)
    training = {**TRAINING, "epochs": 8}
    for mode, count in (("roar", 4), ("kar", 32)):
        probe = {"mode": mode, "removed_fraction": count / PIXELS, "probe": True, "training": training}
        assert cell_of(toy.run(toy.cell(telling, **probe))).test_accuracy == 1.0
        # of 200 fair coins 62 % or more heads come up once in 2,000 tries
        assert cell_of(toy.run(toy.cell(silent, **probe))).test_accuracy < 0.62


def test_the_probe_sees_masks_alone_standardised(toy):
    maps = toy.publish_maps("patch")
    trained_on, _, test = watched(toy, maps, probe=True)
    share = 4 / PIXELS
    spread = (share * (1 - share)) ** 0.5
    for images in (torch.cat(trained_on), test):
        assert images.unique().tolist() == pytest.approx([-share / spread, (1 - share) / spread], rel=1e-5)
        assert torch.equal(images[:, 0], images[:, 1])
        assert (images[:, 0] > 0).flatten(1).sum(1).unique().tolist() == [4]
    trained_on, _, test = watched(toy, maps, probe=True, removed_fraction=1.0)
    assert not test.any()


def test_two_runs_and_warm_and_cold_workers_give_the_same_digest(tmp_path, monkeypatch):
    digests = []
    for name in ("first", "second"):
        toy = new_toy(tmp_path / name)
        maps = toy.publish_maps("patch")
        if name == "second":  # images and ranks of the cells before are still there
            toy.run(toy.cell(maps, mode="kar"))
            toy.run(toy.cell(maps, probe=True))
        digests.append(toy.run(toy.cell(maps)).digest)
    assert digests[0] == digests[1]


def test_images_and_ranks_are_made_once_for_the_cells_of_a_worker(toy, monkeypatch):
    calls = {"images": 0, "ranks": 0}
    for name, count in (("split_images", "images"), ("rank_samples", "ranks")):
        function = getattr(evaluate_roar, name)

        def counted(*args, function=function, count=count):
            calls[count] += 1
            return function(*args)

        monkeypatch.setattr(evaluate_roar, name, counted)
    maps = toy.publish_maps("patch")
    for fraction in (0.1, 0.5):
        for mode in ("roar", "kar"):
            toy.run(toy.cell(maps, mode=mode, removed_fraction=fraction))
    assert calls == {"images": 3, "ranks": 3}
    toy.run(toy.cell(maps, sign="absolute"))
    toy.run(toy.cell(maps, seed=1))
    assert calls == {"images": 3, "ranks": 9}


@pytest.mark.parametrize("room", [1, 2 / 3])
def test_what_is_kept_follows_the_devices_memory(toy, monkeypatch, room):
    """All splits are kept where they are no more than one and a half times what one of them may take."""
    calls: list[str] = []
    function = evaluate_roar.split_images
    monkeypatch.setattr(evaluate_roar, "split_images", lambda *args: (calls.append(args[2]), function(*args))[1])
    bytes_of_all = sum(COUNTS.values()) * 3 * PIXELS * 4
    for module in (evaluate_roar, splits):
        monkeypatch.setattr(module, "resident_bytes", lambda device: int(room * bytes_of_all) - 1)
    for repeat in range(2):
        toy.run(toy.cell(repeat=repeat))
    assert len(calls) == (3 if room == 1 else 6)


@pytest.mark.parametrize("limit", [30_000, 2_000])
def test_data_that_does_not_fit_gives_the_same_digest(tmp_path, monkeypatch, limit):
    """30,000: uint8 pixels lie on the device; 2,000: everything is read batch by batch, ranks too."""
    results = []
    for name, bytes_ in (("resident", 2**30), ("not", limit)):
        monkeypatch.setattr(splits, "_RESIDENT_BYTES_CPU", bytes_)
        toy = new_toy(tmp_path / name, channels=3)
        maps = toy.publish_maps("patch")
        results.append([toy.run(toy.cell(maps)).digest, toy.run(toy.cell(maps, probe=True)).digest])
    assert results[0] == results[1]


def test_maps_in_another_order_give_the_same_digest(tmp_path):
    def shuffled(rows: MapRows) -> MapRows:
        order = np.random.default_rng(5).permutation(len(rows.sample_ids))
        return MapRows([rows.sample_ids[i] for i in order], rows.targets[order], rows.maps[order], rows.logits[order])

    digests = []
    for name, change in (("ordered", lambda rows: rows), ("shuffled", shuffled)):
        toy = new_toy(tmp_path / name)
        digests.append(toy.run(toy.cell(toy.publish_maps("patch", change=change))).digest)
    assert digests[0] == digests[1]


def test_a_cell_killed_after_any_epoch_ends_with_the_digest_of_one_that_was_not(tmp_path, monkeypatch):
    undisturbed = new_toy(tmp_path / "undisturbed")
    expected = undisturbed.run(undisturbed.cell(undisturbed.publish_maps("patch"))).digest
    monkeypatch.setattr(checkpoint.Checkpoint, "due", True)
    toy = new_toy(tmp_path / "killed")
    job = toy.cell(toy.publish_maps("patch"))
    for stop in (5, 9):  # 4 steps an epoch

        def kill(done: int, total: int, unit: str, stop: int = stop) -> None:
            assert (total, unit) == (12, "steps")
            if done >= stop:
                raise KeyboardInterrupt

        toy.context.progress = kill
        with pytest.raises(KeyboardInterrupt):
            toy.run(job)
        assert list(toy.store.work(job.stage, job.key).glob("parts/training.pt"))
    seen: list[int] = []
    toy.context.progress = lambda done, total, unit: seen.append(done)
    assert toy.run(job).digest == expected
    assert seen == [12]


def test_several_labels_an_image(tmp_path):
    toy = new_toy(tmp_path, multi_label=True)
    training = {**TRAINING, "epochs": 8, "loss": "binary_cross_entropy"}
    artifact = toy.run(toy.cell(toy.publish_maps("noise", random_maps), training=training, removed_fraction=0.1))
    rows = predictions_of(artifact)
    assert set(rows["label"]) == {None}
    assert set(rows["correct"]) <= {0.0, 0.5, 1.0}
    assert cell_of(artifact).test_accuracy == pytest.approx(float(np.mean(rows["correct"])))
    assert cell_of(artifact).test_accuracy > 0.75


def test_without_a_validation_split_the_last_epoch_is_reported(tmp_path):
    toy = new_toy(tmp_path, counts={"train": 40, "test": 10})
    cell = cell_of(toy.run(toy.cell(toy.publish_maps("patch"))))
    assert (cell.best_epoch, cell.validation_accuracy) == (TRAINING["epochs"], None)


@pytest.mark.parametrize("missing", ["train", "test"])
def test_a_missing_split_is_named(tmp_path, missing):
    counts = {name: count for name, count in COUNTS.items() if name != missing}
    toy = new_toy(tmp_path, counts=counts)
    with pytest.raises(DataError, match=f"no {missing} split"):
        toy.run(toy.cell(normalization="imagenet"))


def test_a_nan_map_names_its_row_and_nothing_is_published(toy):
    def broken(content, rows):
        maps = patch_maps(content, rows)
        maps[2, 0, 0] = np.nan
        return maps

    job = toy.cell(toy.publish_maps("broken", broken))
    with pytest.raises(ArtifactError, match=r"row 2 .*has NaN"):
        toy.run(job)
    assert not toy.store.exists(job.stage, job.key)


def test_a_flipped_byte_in_the_maps_is_found(toy):
    keys = toy.publish_maps("patch")
    path = toy.store.open("extract-attribution-maps", keys["train"]).path / "maps.h5"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"maps\.h5.*SHA-256"):
        toy.run(toy.cell(keys))
