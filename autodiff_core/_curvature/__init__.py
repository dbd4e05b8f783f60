"""Curvature matrices of losses over outputs: JᵀHJ without differentiating the function twice."""
