"""The class-specific matrix: NN-Explainer's entries, and what its diagonal is."""

from __future__ import annotations

import numpy as np
import torch

from roarline.evaluation.class_masks import masked_class_probabilities, own_and_others
from tests.golden_cases import case
from tests.golden_recipes import tiny_net


def test_entries_of_the_original_notebook() -> None:
    arrays, params = case("s0_class_confusion")
    network = tiny_net(arrays)
    images, masks = torch.from_numpy(arrays["in_image"]), torch.from_numpy(arrays["in_masks"])

    def probabilities_of(inputs: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            probabilities: torch.Tensor = network(inputs).softmax(dim=1)
        return probabilities

    found = masked_class_probabilities(probabilities_of, images, masks)[:, :, params["classes"]].transpose(1, 2)
    # The stored numbers are float32's, 1.2e-7 of their size apart, also with nothing masked.
    np.testing.assert_allclose(found, arrays["out_scores"], rtol=1e-6)
    np.testing.assert_allclose(probabilities_of(images)[:, params["classes"]], arrays["out_none"], rtol=1e-6)


def test_own_class_is_the_diagonal_and_others_are_the_rest() -> None:
    own, others = own_and_others(torch.tensor([[0.9, 0.2, 0.4], [0.1, 0.8, 0.3], [0.0, 0.5, 0.7]]))
    torch.testing.assert_close(own, torch.tensor([0.9, 0.8, 0.7]))
    torch.testing.assert_close(others, torch.tensor([0.3, 0.2, 0.25]))
    assert torch.isnan(own_and_others(torch.ones(2, 1, 1))[1]).all()
