"""Handing a model over: its encoder as an ONNX graph, in fp32 or int8, and vectors from it without PyTorch."""
