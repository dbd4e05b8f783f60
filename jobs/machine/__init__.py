"""Devices, memory, signals, supervision and launchers."""
