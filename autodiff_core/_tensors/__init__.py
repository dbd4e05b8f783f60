"""Operations on tensors that need no derivative: vectors, trees, products, memory."""
