"""The report of the speed benchmark: paragraphs, ratios and a plot."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from contenders import DEFAULT


def paragraph(found: dict[str, Any]) -> str:
    """Format one workload as text."""
    mine = found["seconds"][DEFAULT]
    lines = [f"\n{found['name']}, {found['shape'][0]} x {found['shape'][1]}, {found['options']}"]
    for group, seconds in found["seconds"].items():
        name = found["best"].get(group, "")
        written = found["written"].get(group)
        shown = "" if written is None else f"  written {written:9.4f} s"
        lines.append(f"  {group:36} {seconds:9.4f} s  {seconds / mine:7.2f} of ours{shown}  {name}")
    if alone := found["writing_alone"]:
        share = found["written"][DEFAULT] / max(alone, mine)
        lines.append(
            f"  ours writing alone {alone:.4f} s; together {share:.2f} of the longer of the two"
        )
    job = found["default_job"]
    chosen = f"{job['strategy']} {job['engine']} {job['chunk_size']}"
    lines.append(f"  default job, {chosen}: {job['seconds']:.3f} s")
    probing, computing = job["probing_seconds"], job["computing_seconds"]
    lines.append(f"    probing {probing:.3f} s, computing and writing {computing:.3f} s")
    for group, seconds in found["whole"].items():
        if group != DEFAULT:
            durable = found["durable"][group]
            lines.append(
                f"    {group:36} {seconds:9.4f} s  {seconds / job['seconds']:7.2f} of ours, "
                f"on the disk {durable:9.4f} s  {durable / job['seconds']:7.2f}"
            )
    if found["on_device"]:
        lines.append(f"  ours on the device: {on_device(found['on_device'])}")
    fractions = ", ".join(f"{key} {value:.2f}" for key, value in found["floor"].items())
    lines.append(f"  {fractions}")
    for name, reason in found["left_out"].items():
        if "memory" not in reason:
            lines.append(f"  left out: {name}: {reason}")
    return "\n".join(lines)


def on_device(figures: dict[str, float]) -> str:
    """Format how well the device was kept busy."""
    return (
        f"kernels ran in {figures['utilisation']:.2f} of the time; computing "
        f"{figures['computing_seconds']:.4f} s, copying {figures['copying_seconds']:.4f} s, both "
        f"{figures['both_seconds']:.4f} s, {figures['overlap']:.2f} of the longer"
    )


def summary(found: list[dict[str, Any]]) -> str:
    """Format the ratios to every group: geometric mean and smallest."""
    lines = [
        "\nmultiples of our time, geometric mean and least: blocks, (blocks written), whole jobs, "
        "[whole jobs with the peer's file flushed to the disk]"
    ]
    for group in {group: None for workload in found for group in workload["seconds"]}:
        ratios = ratios_to(group, found, "seconds")
        if group == DEFAULT or not ratios:
            continue
        written = ratios_to(group, found, "written")
        shown = f"  ({mean(written):.2f}, {min(written):.2f})" if written else ""
        if whole := ratios_to(group, found, "whole"):
            durable = ratios_to(group, found, "durable")
            shown += f"  {mean(whole):.2f} {min(whole):.2f}"
            shown += f"  [{mean(durable):.2f} {min(durable):.2f}]"
        lines.append(f"  {group:36} {mean(ratios):7.2f} {min(ratios):7.2f}{shown}")
    return "\n".join(lines)


def ratios_to(group: str, found: list[dict[str, Any]], kind: str) -> list[float]:
    return [
        workload[kind][group] / workload[kind][DEFAULT]
        for workload in found
        if group in workload[kind]
    ]


def mean(ratios: Iterable[float]) -> float:
    return statistics.geometric_mean(ratios)


def plot(found: list[dict[str, Any]], path: Path) -> None:
    """Plot the time of each group as a multiple of ours, as bars."""
    from matplotlib.figure import Figure

    groups = [
        g
        for g in ("torch.autograd.functional, default", "torch.func", "JAX")
        if any(g in workload["seconds"] for workload in found)
    ]
    figure = Figure(figsize=(9, 0.6 * len(found) + 1.5), layout="constrained")
    axes = figure.subplots()
    for number, group in enumerate(groups):
        places = [index + 0.25 * (number - 1) for index in range(len(found))]
        ratios = [
            workload["seconds"].get(group, math.nan) / workload["seconds"][DEFAULT]
            for workload in found
        ]
        axes.barh(places, ratios, 0.25, label=group)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_yticks(range(len(found)), [workload["name"] for workload in found])
    axes.set_xscale("log")
    axes.invert_yaxis()
    axes.set_xlabel("time, as a multiple of ours")
    axes.legend()
    figure.savefig(path)
