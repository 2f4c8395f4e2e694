"""Masks of a target's objects from segmentation and boxes."""

import torch

from roarline.imaging.ground_truth import box_masks, segmentation_masks


def test_segmentation_of_the_target_without_void():
    segmentation = torch.tensor([[[0, 1, 2], [255, 2, 2]]], dtype=torch.uint8).expand(4, -1, -1)
    found = segmentation_masks(segmentation, torch.tensor([0, 1, 7, 254]))
    assert found[0].int().tolist() == [[0, 1, 0], [0, 0, 0]]
    assert found[1].int().tolist() == [[0, 0, 1], [0, 1, 1]]
    assert found[2].int().tolist() == [[0, 1, 1], [0, 1, 1]]  # no object of class 7: all objects, without void
    assert found[3].int().tolist() == [[0, 1, 1], [0, 1, 1]]  # class 254 would be written as 255, which is void


def test_an_image_without_objects_has_an_empty_mask():
    assert not segmentation_masks(torch.zeros(1, 2, 2, dtype=torch.uint8), torch.tensor([0])).any()
    assert not box_masks(torch.zeros(0, 6, dtype=torch.int64), torch.tensor([0]), torch.tensor([0]), (2, 2)).any()


def test_boxes_hold_both_corners_and_unite():
    boxes = torch.tensor([[5, 1, 0, 0, 1, 0], [5, 1, 2, 2, 2, 3], [5, 0, 3, 3, 3, 3], [6, 1, 0, 0, 3, 3]])
    found = box_masks(boxes, torch.tensor([5, 5, 5]), torch.tensor([1, 0, 9]), (4, 4))
    one = [[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0]]
    assert found[0].int().tolist() == one
    assert found[1].int().nonzero().tolist() == [[3, 3]]
    assert found[2].int().tolist() == [*one[:3], [0, 0, 1, 1]]
