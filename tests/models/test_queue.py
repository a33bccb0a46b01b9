import io
from collections import deque

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slotcon_plugin.models import KeyQueue


def rows_oldest_first(queue):
    """What the queue holds, as (key, image id) pairs in the order of writing."""
    order = (torch.arange(len(queue)) + queue.position) % len(queue)
    rows = zip(queue.keys[order, 0].tolist(), queue.image_ids[order].tolist())
    return [(key, image) for key, image in rows if image >= 0]


@given(size=st.integers(1, 9), batches=st.lists(st.integers(0, 25), max_size=8))
@settings(max_examples=200, deadline=None)
def test_equals_a_deque_for_any_batch_sizes(size, batches):
    queue, oracle = KeyQueue(size, channels=2), deque(maxlen=size)
    written = 0
    for count in batches:
        values = torch.arange(written, written + count)
        queue.enqueue(torch.stack([values, -values], dim=1).float(), values // 3)
        oracle.extend((float(v), v // 3) for v in values.tolist())
        written += count
        assert rows_oldest_first(queue) == list(oracle)
        assert queue.position.item() == written % size
        assert queue.fill.item() == pytest.approx(len(oracle) / size)
        assert torch.equal(queue.keys[:, 1], -queue.keys[:, 0])


def test_an_image_is_never_its_own_negative_and_empty_rows_are_none():
    queue = KeyQueue(5, channels=1)
    queue.enqueue(torch.ones(4, 1), torch.tensor([7, 8, 7, 0]))
    expected = [
        [True, False, True, False, True],  # image 7
        [False, False, False, True, True],  # image 0
        [False, False, False, False, True],  # image 3, not in the queue
    ]
    assert queue.excluded_for(torch.tensor([7, 0, 3])).tolist() == expected


def test_a_checkpoint_continues_as_if_there_had_been_no_stop():
    straight, stopped = KeyQueue(7, channels=3), KeyQueue(7, channels=3)
    batches = [(torch.randn(5, 3), torch.randint(0, 9, (5,))) for _ in range(4)]
    for keys, ids in batches[:2]:
        straight.enqueue(keys, ids)
        stopped.enqueue(keys, ids)
    file = io.BytesIO()
    torch.save(stopped.state_dict(), file)
    file.seek(0)
    resumed = KeyQueue(7, channels=3)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for keys, ids in batches[2:]:
        straight.enqueue(keys, ids)
        resumed.enqueue(keys, ids)
    for name, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_keys_are_stored_without_gradient_or_sharing():
    queue, keys = KeyQueue(4, channels=2), torch.ones(2, 2, requires_grad=True)
    queue.enqueue(keys, torch.tensor([0, 1]))
    with torch.no_grad():
        keys.zero_()
    assert not queue.keys.requires_grad
    assert queue.keys[:2].eq(1).all()


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"keys \(N, 2\)"):
        KeyQueue(4, channels=2).enqueue(torch.ones(3, 3), torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match="image_ids"):
        KeyQueue(4, channels=2).enqueue(torch.ones(3, 2), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ValueError, match="size"):
        KeyQueue(0)
