"""The pool of classifiers: copies from different times, never the live weights, the same again after a resume."""

import torch
from torch import nn

from roarline.training.classifier_pool import ClassifierPool


def network(value):
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    model[0].weight.data.fill_(value)
    return model


def filled(size, steps, every=1, seed=0):
    """A pool that was offered a network whose weights say the step."""
    pool, generator = ClassifierPool(size, every), torch.Generator().manual_seed(seed)
    for step in range(steps):
        pool.offer(network(float(step)), step, generator)
    return pool


def held(pool):
    return [int(copy["0.weight"][0, 0]) for copy in pool.copies]


def test_b3_15_copies_are_no_aliases_of_the_live_weights():
    model, pool, generator = network(1.0), ClassifierPool(3, 1), torch.Generator().manual_seed(0)
    pool.offer(model, 0, generator)
    model[0].weight.data.fill_(5.0)
    model[1].running_mean.fill_(7.0)
    model[1].num_batches_tracked += 3
    judge = network(0.0)
    pool.load_into(judge, generator)
    assert torch.equal(judge[0].weight, torch.ones(2, 2))
    assert torch.equal(judge[1].running_mean, torch.zeros(2))
    assert judge[1].num_batches_tracked == 0


def test_the_first_step_and_every_so_many_are_kept():
    # (step mod every) = every - 1, and at once where the pool is empty
    assert held(filled(10, 9, every=4)) == [0, 3, 7]


def test_a_full_pool_gives_up_one_drawn_at_random():
    pool = filled(3, 40)
    assert len(pool.copies) == 3
    assert 39 in held(pool)
    assert len(set(held(pool))) == 3
    assert held(filled(3, 40, seed=1)) != held(pool)


def test_every_copy_is_drawn_about_equally_often():
    pool, judge, generator = filled(4, 4), network(0.0), torch.Generator().manual_seed(3)
    counts = [0] * 4
    for _ in range(400):
        pool.load_into(judge, generator)
        counts[int(judge[0].weight[0, 0])] += 1
    # 100 each with a standard deviation of 8.7; five of them are 43
    assert all(abs(count - 100) < 43 for count in counts)


def test_a_restored_pool_is_the_same_and_shares_nothing():
    pool, other = filled(3, 5), ClassifierPool(3, 1)
    other.load_state_dict(pool.state_dict())
    assert held(other) == held(pool)
    pool.copies[0]["0.weight"].fill_(99.0)
    assert held(other) != held(pool)
