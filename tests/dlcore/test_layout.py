import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlcore.config import ModelConfig
from dlcore.layout import lay_out


def model(widths: tuple[int, ...], activation: str = "relu") -> ModelConfig:
    return ModelConfig(5, 2, widths, activation=activation)


@given(st.lists(st.lists(st.integers(1, 6), max_size=3).map(tuple), min_size=1, max_size=8))
def test_every_parameter_has_one_place(shapes):
    shapes.sort(key=len)
    layout = lay_out([model(widths) for widths in shapes], shapes)
    taken = sorted(
        place
        for block in layout.blocks
        for place in (*range(block.weight, block.weight + block.size), *range(block.bias, block.bias + block.n_out))
    )
    assert taken == list(range(layout.n_parameters))
    for layer in (*layout.layers, layout.head):
        rows = [row for block in layer.blocks for row in range(block.row, block.row + block.n_out)]
        assert rows == list(range(layer.rows))


@given(st.lists(st.lists(st.integers(1, 3), max_size=3).map(tuple), min_size=1, max_size=8))
def test_runs_cover_all_blocks_with_equal_shapes_side_by_side(shapes):
    shapes.sort(key=lambda widths: (len(widths), widths))
    layout = lay_out([model(widths) for widths in shapes], shapes)
    for layer in (*layout.layers[1:], layout.head):
        blocks = list(layer.blocks)
        for run in layer.runs:
            own, blocks = blocks[: run.n], blocks[run.n :]
            assert own[0] == run.first
            for n, block in enumerate(own):
                assert (block.n_out, block.n_in) == (run.first.n_out, run.first.n_in)
                assert block.weight == run.first.weight + n * run.first.size
                if run.input_layer >= 0:
                    assert block.input_row == run.first.input_row + n * run.first.n_in
        assert not blocks


def test_the_first_layer_is_one_product_whatever_the_widths():
    layout = lay_out([model((3,)), model((7, 2)), model((4,))], [(3,), (7, 2), (4,)])
    (run,) = layout.layers[0].runs
    assert (run.n, run.first.n_out, run.first.n_in) == (1, 14, 5)


def test_members_with_batches_of_their_own_share_a_first_product_where_their_widths_are_equal():
    layout = lay_out([model((3,)), model((7, 2)), model((7,)), model((4,))], [(3,), (7, 2), (7,), (4,)])
    assert [(run.first.member, run.n) for run in layout.layers[0].own_runs] == [(0, 1), (1, 2), (3, 1)]
    assert layout.head.own_runs == layout.head.runs


@pytest.mark.parametrize("activations, spans", [(["relu", "relu", "tanh"], 2), (["tanh", "relu", "tanh"], 3)])
def test_neighbours_with_one_activation_are_one_span(activations, spans):
    layout = lay_out([model((3,), name) for name in activations], [(3,)] * 3)
    assert len(layout.layers[0].spans) == spans
