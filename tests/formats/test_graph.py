from edgekd.formats.graph import Graph, Op, Tensor, float_islands, live_peak


def _graph(**sizes):
    tensors = {name: Tensor(name, (size,), "int8") for name, size in sizes.items()}
    tensors["w"] = Tensor("w", (1000,), "int8", constant_bytes=1000)
    ops = (
        Op("first", "CONV", ("x", "w"), ("a",)),
        Op("second", "CONV", ("a",), ("b",)),
        Op("third", "ADD", ("a", "b"), ("y",)),
    )
    return Graph(ops, tensors, ("x",), ("y",))


def test_the_peak_is_that_of_the_fullest_operator():
    """first: x + a = 30; second: a + b = 50; third: a + b + y = 55. Weights don't count."""
    assert live_peak(_graph(x=10, a=20, b=30, y=5)) == (55, "")


def test_an_input_is_freed_after_its_last_reader():
    assert live_peak(_graph(x=100, a=20, b=30, y=5)) == (120, "")


def test_an_open_dimension_has_no_peak_but_a_reason():
    graph = _graph(x=10, a=-1, b=30, y=5)
    assert live_peak(graph) == (None, "the file does not give the size of tensor 'a'")


def test_four_bit_tensors_take_half_a_byte_each():
    assert Tensor("t", (3, 3), "int4").bytes == 5


def test_parameters_and_operators_are_counted():
    graph = _graph(x=1, a=1, b=1, y=1)
    assert graph.parameter_bytes == 1000
    assert graph.counts == {"CONV": 2, "ADD": 1}


def test_float_islands_are_what_computes_in_float_between_the_shores():
    tensors = {
        "x": Tensor("x", (1, 4), "int8"),
        "f": Tensor("f", (1, 4), "float32"),
        "g": Tensor("g", (1, 4), "float32"),
        "y": Tensor("y", (1, 4), "int8"),
    }
    ops = (
        Op("down", "DEQUANTIZE", ("x",), ("f",)),
        Op("middle", "ELU", ("f",), ("g",)),
        Op("up", "QUANTIZE", ("g",), ("y",)),
    )
    assert [op.name for op in float_islands(Graph(ops, tensors, ("x",), ("y",)))] == ["middle"]
    floats = {name: Tensor(name, (1, 4), "float32") for name in tensors}
    assert float_islands(Graph(ops, floats, ("x",), ("y",))) == ()
