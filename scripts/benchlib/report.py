"""The tables that a run ends with."""

import statistics

from .contenders import FLOOR, reference
from .slices import ratio

FIGURES = ("throughput", "p50_ms", "p99_ms", "cpu", "memory")
HEADINGS = ("tps", "p50 ms", "p99 ms", "CPU s/1000 tx", "memory MiB")


def slices(found, loads):
    """Per scenario a table: a row per contender, medians over the rounds, each with its ratios to PgBouncer and to the floor."""
    for scenario in (load.name for load in loads):
        of = {}
        for each in found:
            if each.scenario == scenario:
                of.setdefault(each.contender, {})[each.round] = each
        print(f"\n{scenario}")
        print("  " + f"{'':13}" + "".join(f"{heading:>24}" for heading in HEADINGS) + "   errors")
        for name in sorted(of, key=rank):
            cells = [cell(of, name, figure) for figure in FIGURES]
            errors = sum(each.errors for each in of[name].values())
            print(f"  {name:13}" + "".join(f"{text:>24}" for text in cells) + f"{errors:>9}")


def rank(name):
    return (name == FLOOR, name.endswith("-N"), name.startswith("pgbouncer"))


def cell(of, name, figure):
    """Median, ratio to the PgBouncer of as many processes, ratio to the floor."""
    values = [getattr(each, figure) for each in of[name].values()]
    values = [value for value in values if value is not None]
    if not values:
        return "-"
    ratios = [ratio(of[name], of.get(other), figure) if other != name else None for other in (reference(name), FLOOR)]
    return number(statistics.median(values)) + "".join(f"{f'x{value:.2f}' if value else '':>7}" for value in ratios)


def number(value):
    if value >= 1000:
        return f"{value:.0f}"
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def per_contender(title, unit, found):
    """Contender -> figure, with the ratio to PgBouncer."""
    print(f"\n{title}")
    for name, value in found.items():
        other = found.get(reference(name))
        against = f"   x{value / other:.2f} PgBouncer" if other and reference(name) != name else ""
        print(f"  {name:13}{value:10.2f} {unit}{against}")


def per_load(title, found):
    """(scenario, contender) -> figure, or {name: figure} with a total."""
    print(f"\n{title}")
    for (scenario, name), value in found.items():
        detail = ""
        if isinstance(value, dict):
            parts = sorted(((v, k) for k, v in value.items() if k != "total" and v >= 0.005), reverse=True)
            detail = "   " + ", ".join(f"{k} {v:.2f}" for v, k in parts)
            value = value.get("total")
        shown = "-" if value is None else f"{value:.2f}" if value < 100 else f"{value:.0f}"
        print(f"  {scenario:22}{name:13}{shown:>9}{detail}")
