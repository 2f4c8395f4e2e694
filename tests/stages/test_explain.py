"""explain: the right class, the right map, a picture that says so, and messages where it can't."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from roarline.attribution.gradient import gradient
from roarline.data.decoding import resize_and_crop, to_array
from roarline.data.loading import normalise
from roarline.errors import DataError, MethodError, ModelError, UserInputError
from roarline.models.load import load_classifier
from roarline.models.load_explainer import load_explainer
from roarline.stages import explain as stage
from roarline.stages.explain import explain, find_class
from tests.stages.toy_classifier import toy_classifier, toy_dataset
from tests.stages.toy_explainer import toy_explainer

REAL = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.fixture
def photo(tmp_path, rng):
    """An image file of 40 × 20 px whose middle square is noise."""
    path = tmp_path / "photo.png"
    Image.fromarray(rng.integers(0, 256, (20, 40, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def classifier(store):
    return str(toy_classifier(store, side=20).path)


def run(store, photo, classifier, tmp_path, method="gradient", **settings):
    return explain(photo, classifier, method, store=store, output=tmp_path / "out.png", **settings)


def middle(photo):
    pixels = np.asarray(Image.open(photo))[:, 10:30].transpose(2, 0, 1)
    return (torch.from_numpy(pixels.copy())[None].float() / 255 - 0.5) / 0.25


def test_predicted_class_its_probability_and_map(store, photo, classifier, tmp_path):
    result = run(store, photo, classifier, tmp_path)
    model, _ = load_classifier(toy_classifier(store, side=20))
    images = middle(photo)
    probabilities = torch.softmax(model(images), dim=1)[0]
    best = int(probabilities.argmax())
    assert (result.target, result.predicted, result.class_name) == (best, best, f"class {best}")
    assert result.probability == pytest.approx(float(probabilities[best]), rel=1e-5)
    expected = gradient(model, images, torch.tensor([best])).abs().amax(dim=1)[0]
    np.testing.assert_allclose(result.map_HW, expected.numpy(), rtol=1e-4, atol=1e-6)
    assert f"class {best}" in result.summary
    with Image.open(result.output) as picture:
        assert picture.format == "PNG"
        assert picture.width > 1000


@pytest.mark.parametrize("target", ["2", "class 2", "CLASS 2"])
def test_target_by_index_or_name(store, photo, classifier, tmp_path, target):
    result = run(store, photo, classifier, tmp_path, target=target)
    assert result.target == 2
    if result.predicted != 2:
        assert f"the network predicts class {result.predicted}" in result.summary


def test_multi_label_probability_is_each_classes_own(store, photo, tmp_path):
    classifier = toy_classifier(store, side=20, multi_label=True)
    result = run(store, photo, str(classifier.path), tmp_path, target="1")
    logits = load_classifier(classifier)[0](middle(photo))
    assert result.probability == pytest.approx(float(torch.sigmoid(logits[0, 1])), rel=1e-5)


def test_an_explainer_draws_the_map_of_its_own_classifier(store, photo, tmp_path):
    classifier = toy_classifier(store, side=20)
    artifact = toy_explainer(store, classifier)
    result = run(store, photo, str(classifier.path), tmp_path, None, explainer=str(artifact.path), target="2")
    model, card = load_classifier(classifier)
    network, _ = load_explainer(
        artifact, model, classifier_artifact=classifier, class_names=card.class_names, input_size=(20, 20)
    )
    with torch.no_grad():
        expected = network.masks(model, middle(photo))[0, 2]
    np.testing.assert_allclose(result.map_HW, expected.numpy(), rtol=1e-4, atol=1e-6)
    assert "; nn_explainer on small_cnn" in result.summary


def test_an_explainer_of_another_classifier_is_refused(store, photo, classifier, tmp_path):
    other = toy_classifier(store, side=20, params={"width": 8})
    explainer = str(toy_explainer(store, other).path)
    with pytest.raises(ModelError, match=rf"trained for classifier .*{other.digest[:16]}.*this is .*{classifier}"):
        run(store, photo, classifier, tmp_path, None, explainer=explainer)
    with pytest.raises(UserInputError, match="expected an explainer of train-explainer"):
        run(store, photo, classifier, tmp_path, None, explainer=classifier)
    for method, given, params in (("gradient", explainer, None), (None, None, None), (None, explainer, {"a": 1})):
        with pytest.raises(UserInputError, match="give --method with its parameters, or --explainer"):
            run(store, photo, classifier, tmp_path, method, explainer=given, params=params)


@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg"])
@pytest.mark.parametrize("method", ["input_x_gradient", "constant"])
def test_formats_signed_and_flat_maps(store, photo, classifier, tmp_path, suffix, method):
    output = tmp_path / f"out{suffix}"
    explain(photo, classifier, method, store=store, output=output)
    assert output.read_bytes()[:5] in (b"\x89PNG\r", b"%PDF-", b"<?xml")


def test_random_numbers_are_the_same_each_time(store, photo, classifier, tmp_path):
    first = run(store, photo, classifier, tmp_path, "smoothgrad", params={"samples": 2})
    again = run(store, photo, classifier, tmp_path, "smoothgrad", params={"samples": 2})
    np.testing.assert_array_equal(first.map_HW, again.map_HW)


def test_torchvision_inputs_equal_its_own_transforms(tmp_path, rng):
    """Its published preprocessing, on a Pillow image, gives the very same pixels."""
    weights = tmp_path / "weights.pth"
    torch.save(torchvision.models.squeezenet1_1(weights=None).state_dict(), weights)
    subject = stage._load_torchvision("torchvision:squeezenet1_1", weights)
    image = Image.fromarray(rng.integers(0, 256, (301, 417, 3), dtype=np.uint8))
    transforms = torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1.transforms()
    torch.testing.assert_close(subject.prepare(image)[0], transforms(image))
    assert subject.class_names[207] == "golden retriever"


@pytest.mark.data
def test_a_real_photo_is_recognised_and_gradcam_lies_on_the_animal(store, tmp_path):
    """The photo's dog fills its left half; what Grad-CAM keeps lies there."""
    if not (REAL / "squeezenet1_1_imagenet.pth").exists():
        pytest.skip("../shared/data is not there")
    import tarfile

    with tarfile.open(REAL / "imagenet-samples.tar") as archive:
        member = archive.extractfile("val/n02096437/n02096437_Dandie_Dinmont.jpg")
        photo = tmp_path / "dog.jpg"
        photo.write_bytes(member.read())
    result = explain(
        photo, "torchvision:squeezenet1_1", "gradcam", store=store, params={"layer": "features.12"},
        weights=REAL / "squeezenet1_1_imagenet.pth", output=tmp_path / "dog.png",
    )  # fmt: skip
    assert result.class_name == "Dandie Dinmont"
    assert result.probability > 0.5
    assert result.map_HW[:, :112].sum() > 2 * result.map_HW[:, 112:].sum()


@pytest.mark.parametrize(
    ("resize_px", "crop_px", "stretched"), [(16, 10, None), (None, 10, None), (20, 20, None), (20, 10, True)]
)
def test_the_network_sees_the_picture_that_the_pipeline_showed_it(store, tmp_path, rng, resize_px, crop_px, stretched):
    path = tmp_path / "wide.png"
    Image.fromarray(rng.integers(0, 256, (24, 36, 3), dtype=np.uint8)).save(path)
    artifact = toy_classifier(store, side=crop_px, resize_px=resize_px, crop_px=crop_px, stretched=stretched)
    model, card = load_classifier(artifact)
    assert (card.resize_px, card.crop_px) == (resize_px, crop_px)
    with Image.open(path) as image:
        cut = resize_and_crop(image.convert("RGB"), resize_px, crop_px, "wide", stretch=bool(stretched))
        seen = to_array(cut)
    logits = model(normalise(torch.from_numpy(seen.copy())[None], card.mean, card.std))
    result = run(store, path, str(artifact.path), tmp_path)
    assert result.probability == pytest.approx(float(logits.softmax(dim=1)[0, result.target]), rel=1e-5)


def test_fit_covers_an_oblong_input_and_cuts_its_centre():
    image = Image.new("RGB", (100, 50))
    image.paste((255, 0, 0), (40, 0, 60, 50))
    fitted = stage._fit(image, None, (20, 10))
    assert fitted.size == (10, 20)
    assert fitted.getpixel((5, 10)) == (255, 0, 0)


def test_find_class_says_what_is_near_ambiguous_or_out_of_range():
    names = ["tench", "crane", "goldfish", "crane"]
    assert find_class("goldfish", names) == 2
    with pytest.raises(UserInputError, match="did you mean 'goldfish'"):
        find_class("goldfisch", names)
    with pytest.raises(UserInputError, match="classes 1 and 3 bear this name"):
        find_class("crane", names)
    for index in ("4", "-1"):
        with pytest.raises(UserInputError, match="classes 0 to 3"):
            find_class(index, names)


def test_unusable_input_is_named(store, photo, classifier, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"broken\.jpg: no readable image"):
        run(store, broken, classifier, tmp_path)
    with pytest.raises(DataError, match=r"missing\.jpg: can't be read"):
        run(store, tmp_path / "missing.jpg", classifier, tmp_path)
    with pytest.raises(UserInputError, match="expected a classifier of train-cls"):
        run(store, photo, str(toy_dataset(store).path), tmp_path)
    with pytest.raises(UserInputError, match="goes with torchvision"):
        run(store, photo, classifier, tmp_path, weights=photo)
    with pytest.raises(ModelError, match="did you mean resnet50"):
        run(store, photo, "torchvision:resnet5", tmp_path)
    with pytest.raises(ModelError, match="no layer 'conv9'"):
        run(store, photo, classifier, tmp_path, "gradcam", params={"layer": "conv9"})
    with pytest.raises(UserInputError, match="steps"):
        run(store, photo, classifier, tmp_path, "integrated_gradients", params={"step": 3})
    with pytest.raises(UserInputError, match=r"ends in \.png, \.pdf, \.svg"):
        explain(photo, classifier, "gradient", store=store, output=tmp_path / "out.txt")
    with pytest.raises(UserInputError, match=r"can't write here .*--output"):
        explain(photo, classifier, "gradient", store=store, output=broken / "out.png")


def nan(model, images, targets):
    """A method that returns NaN."""
    return images * float("nan")


def one_by_one(model, image, label):
    """The original's call style."""
    return np.ones((3, 20, 20)) * float(label)


def test_the_users_method_is_checked_as_in_the_stage(store, photo, classifier, tmp_path):
    with pytest.raises(MethodError, match="NaN"):
        run(store, photo, classifier, tmp_path, "tests.stages.test_explain.nan")
    single = "tests.stages.test_explain.one_by_one"
    result = run(store, photo, classifier, tmp_path, single, batched=False, target="3")
    np.testing.assert_array_equal(result.map_HW, np.full((20, 20), 9.0))  # the sum of three channels
