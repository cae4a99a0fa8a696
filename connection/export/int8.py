"""Products of a graph with weights in int8: which of them stay in fp32 is searched on pairs, by what each does to the cosines.

The weights have a scale for each output, the states one for each call (onnxruntime's dynamic quantisation). The graph is one of
`even_ranges`, which holds 8 bits well.
https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from connection.export.graph import quiet

ERROR = 0.006  # root mean square of what may change in the cosines: 0.005 cost 0.01 points of Spearman x 100 on 1,379 STS pairs
Cosines = Callable[[Path], np.ndarray]  # of a graph's file, on the pairs of the search: (N,)


def products(graph: Path, apart: bool = False) -> list[str]:
    """Returns the names of the products with a weight in a graph, or of those of channels that are apart."""
    import onnx

    model = onnx.load(graph)
    weights = {tensor.name for tensor in model.graph.initializer if ("_apart." in tensor.name) == apart}
    return [node.name for node in model.graph.node if node.op_type == "MatMul" and weights & set(node.input)]


def quantize(graph: Path, target: Path, in_fp32: Sequence[str], exact: bool) -> None:
    """Write a graph whose products have weights in int8, but for those named `in_fp32`.

    exact: the processor adds products of 8 bits without overflow (VNNI, AMX); else the weights have 7 bits.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with quiet():
        quantize_dynamic(
            graph,
            target,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            reduce_range=not exact,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=[*in_fp32, *products(graph, apart=True)],
        )


def search(
    graph: Path, target: Path, wanted: np.ndarray, cosines: Cosines, exact: bool, tell: Callable[[int, int], None]
) -> list[str]:
    """Write the graph with as many products in int8 as change the cosines by at most `ERROR`; return those in fp32.

    If not all can be, they are ordered by what each alone changes. wanted: the cosines of the model, (N,). tell(done, all):
    called before each trial.
    """
    names = products(graph)

    def error(in_fp32: Sequence[str]) -> float:
        quantize(graph, target, in_fp32, exact)
        return float(np.sqrt(np.mean((cosines(target) - wanted) ** 2)))

    if error([]) <= ERROR:
        return []
    alone = []
    for place, name in enumerate(names):
        tell(place, len(names))
        alone.append(error([other for other in names if other != name]))
    worst_first = [names[place] for place in np.argsort(alone)[::-1]]
    # What single products change adds up, as their errors are independent: it says where to begin.
    rest = np.sqrt(np.cumsum(np.sort(alone) ** 2))[::-1]  # of all but the 0, 1, 2 ... worst
    kept = int(np.searchsorted(-rest, -ERROR))
    while kept < len(names) and error(worst_first[:kept]) > ERROR:
        kept += 1
    if kept == len(names):
        quantize(graph, target, names, exact)
    return worst_first[:kept]
