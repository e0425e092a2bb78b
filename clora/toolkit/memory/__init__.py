"""How a large frozen network fits: weights in few bits, blocks that wait in CPU memory, activations made twice."""
