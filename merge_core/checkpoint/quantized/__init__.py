"""Quantized weights, read as the float tensors that they stand for."""
