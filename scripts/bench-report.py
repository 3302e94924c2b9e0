#!/usr/bin/env python3
"""Turns the samples of scripts/bench into tables on standard output, JSON and a plot.

Usage: bench-report.py ABOUT.json SAMPLES.jsonl [--json FILE] [--svg FILE]
"""

import argparse
import json
import sys
from collections import defaultdict
from statistics import median

BASE = "kernel"
# Metric, heading, unit, digits, and whether less is better.
COLUMNS = [
    ("tcp1_up", "TCP 1 up", "Gbit/s", 2, False),
    ("tcp1_down", "TCP 1 down", "Gbit/s", 2, False),
    ("tcp4_up", "TCP 4 up", "Gbit/s", 2, False),
    ("tcp4_down", "TCP 4 down", "Gbit/s", 2, False),
    ("udp", "UDP 64 B", "kpps", 1, False),
    ("latency_p50", "latency p50", "µs", 1, True),
    ("latency_p99", "latency p99", "µs", 1, True),
    ("connections", "connections", "/s", 0, False),
]
OTHER_COLUMNS = [("udp_offered", "UDP sent", "kpps", 0, False), ("udp_lost", "lost", "part", 2, True)]
COLOURS = {
    "nat44": "#8c8c8c",
    "slirp": "#e3c68f",
    "slirp-jumbo": "#b98a3a",
    "router-off": "#9ecae1",
    "router-on": "#3182bd",
    "path": "#31a354",
}
# Of docs/performance.md: what, path, metric, compared to, bound.
RATIO_TARGETS = [
    ("router alone, TCP 1 stream", "router-on", "tcp1_up", "nat44", ">=", 1.0),
    ("router alone, TCP 4 streams", "router-on", "tcp4_up", "nat44", ">=", 0.65),
    ("router alone, UDP 64 B", "router-on", "udp", "nat44", ">=", 1.05),
    ("router alone, latency p50", "router-on", "latency_p50", "kernel", "<=", 1.1),
    ("whole path, TCP 1 stream", "path", "tcp1_up", "kernel", ">=", 0.6),
    ("whole path, TCP 1 stream", "path", "tcp1_up", "slirp", ">=", 3.0),
]
FIRST_MS = 1.0
GAP_S = 1.0
# An idle router: the resolution of what can be told apart from nothing, and timers of the neighbour table.
IDLE_PERCENT = 0.05
IDLE_WAKEUPS = 1.0
ELSEWHERE = "lookups and 4,000 hosts on one address are measured by other tests"


class Samples:
    """Values by path, metric and round."""

    def __init__(self, lines):
        self.values = defaultdict(lambda: defaultdict(list))
        self.cores = defaultdict(list)
        self.paths = []
        for line in lines:
            one = json.loads(line)
            path, metric = one["path"], one["metric"]
            self.values[path, metric][one["round"]].append(one["value"])
            if one["cores"] is not None:
                self.cores[path, metric].append(one["cores"])
            if metric == "tcp1_up" and path not in self.paths:
                # The order of the first round is that of the help text.
                self.paths.append(path)
        # What --quick leaves out has no column.
        self.columns = [column for column in COLUMNS if self.all(BASE, column[0])]

    def all(self, path, metric):
        """All values, of all rounds."""
        return [value for values in self.values[path, metric].values() for value in values]

    def median(self, path, metric):
        """The median of all rounds, or None where nothing was measured."""
        values = self.all(path, metric)
        return median(values) if values else None

    def ratio(self, path, metric, base):
        """Median, least and greatest of the ratios within each round."""
        mine, other = self.values[path, metric], self.values[base, metric]
        ratios = [median(mine[n]) / median(other[n]) for n in mine if n in other and median(other[n])]
        return (median(ratios), min(ratios), max(ratios)) if ratios else None


def table(head, rows, out):
    """Prints columns, the first one to the left and the others to the right."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    for row in [head, *rows]:
        cells = [row[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
        print("  ".join(cells).rstrip(), file=out)


def targets(samples, about):
    """Each target with what was measured: what, bound, measured, range, met."""
    found = []
    for what, path, metric, base, sign, bound in RATIO_TARGETS:
        ratio = samples.ratio(path, metric, base)
        if ratio is None:
            continue
        met = ratio[0] >= bound if sign == ">=" else ratio[0] <= bound
        shown = f"{ratio[0]:.2f} × ({ratio[1]:.2f}–{ratio[2]:.2f})"
        found.append((what, f"{'≥' if sign == '>=' else '≤'} {bound} × {base}", shown, met))

    first = [value / 1000 for value in samples.all("router-on", "first_added")]
    if first:
        shown = f"{median(first):.2f} ms ({min(first):.2f}–{max(first):.2f})"
        met = median(first) <= FIRST_MS
        found.append(("first packet, unresolved host", f"≤ {FIRST_MS:.0f} ms added", shown, met))
    broken = samples.all("path", "restart_broken")
    if broken:
        lost = int(sum(broken))
        found.append(("router killed under load", "no connection lost", f"{lost} of {len(broken)}", lost == 0))
        for kind in ("tcp", "udp"):
            gaps = samples.all("path", f"restart_{kind}_gap")
            shown = f"{median(gaps):.2f} s ({min(gaps):.2f}–{max(gaps):.2f})"
            # Everyone of them, not their median.
            found.append((f"  silence, {kind.upper()}", f"< {GAP_S:.0f} s", shown, max(gaps) < GAP_S))
    for node in ("router", "h1"):
        ran, woken = samples.median(node, "idle_ms"), samples.median(node, "idle_wakeups")
        if ran is None:
            continue
        percent, rate = ran / about["idle_seconds"] / 10, woken / about["idle_seconds"]
        found.append((f"idle {node}", "0 % processor", f"{percent:.3f} %", percent <= IDLE_PERCENT))
        found.append(("  wake-ups", "timers only, ≤ 1/s", f"{rate:.1f}/s", rate <= IDLE_WAKEUPS))
    return found


def report(samples, about, found, out):
    """Prints the tables."""
    print(
        f"{about['version']} ({about['commit']}), {about['date']}, {about['rounds']} rounds of {about['seconds']} s",
        file=out,
    )
    print(
        f"{about['processors']} × {about['processor']}, {about['memory_mib']} MiB, Linux {about['kernel']}, "
        f"{about['congestion']}",
        file=out,
    )
    print(
        f"iperf3 {about['iperf3']}, slirp4netns {about['slirp4netns']}; router-on has {about['offloads']}",
        file=out,
    )
    if about["busy_before"] > 0.2:
        print(
            f"CAUTION: other work kept {about['busy_before']} of {about['processors']} processors busy"
            + (f"; measured with priority {about['nice']}" if about["nice"] else "")
            + ": cores say nothing, and ratios may be off",
            file=out,
        )

    print("\nMedians\n", file=out)
    rows = [["", *[unit for _, _, unit, _, _ in samples.columns]]]
    for path in samples.paths:
        values = [(samples.median(path, metric), digits) for metric, _, _, digits, _ in samples.columns]
        rows.append([path, *["–" if value is None else f"{value:.{digits}f}" for value, digits in values]])
    table(["path", *[heading for _, heading, _, _, _ in samples.columns]], rows, out)

    print(f"\nRatio to {BASE} in the same round: median (least–greatest)\n", file=out)
    rows = []
    for path in samples.paths:
        if path == BASE:
            continue
        ratios = [samples.ratio(path, metric, BASE) for metric, *_ in samples.columns]
        rows.append([path, *["–" if r is None else f"{r[0]:.2f} ({r[1]:.2f}–{r[2]:.2f})" for r in ratios]])
    table(["path", *[heading for _, heading, _, _, _ in samples.columns]], rows, out)

    print(f"\nBusy cores of {about['processors']}, median; UDP sent in kpps, and the part that was lost\n", file=out)
    columns = [column for column in samples.columns if column[0] != "latency_p99"]
    rows = []
    for path in samples.paths:
        cores = [samples.cores[path, metric] for metric, *_ in columns]
        rows.append(
            [path, *["–" if not values else f"{median(values):.2f}" for values in cores]]
            + [f"{samples.median(path, 'udp_offered'):.0f}", f"{samples.median(path, 'udp_lost') * 100:.0f} %"]
        )
    names = [heading.removesuffix(" p50") for _, heading, *_ in columns]
    table(["path", *names, "UDP sent", "lost"], rows, out)

    kernel_first = samples.median(BASE, "first_added")
    print("\nTargets\n", file=out)
    rows = [[what, bound, shown, "PASS" if met else "MISS"] for what, bound, shown, met in found]
    table(["", "target", "measured", ""], rows, out)
    if kernel_first is not None:
        print(f"\nThe kernel's own plain ARP adds {kernel_first / 1000:.2f} ms to a first packet.", file=out)
    took = samples.all("path", "restart_took_ms")
    if took:
        lost = samples.median("path", "restart_udp_lost")
        print(
            f"From kill -9 until the router was ready again: {median(took):.0f} ms ({min(took)}–{max(took)}); "
            f"{lost:.0f} datagrams lost at 1000/s.",
            file=out,
        )
    missed = [what.strip() for what, _, _, met in found if not met]
    print(f"{len(missed)} of {len(found)} targets missed" + (f": {'; '.join(missed)}." if missed else "."), file=out)
    print(f"Not here: {ELSEWHERE}.", file=out)


def as_json(samples, about, found):
    """Everything in the tables, as JSON."""
    paths = {}
    for path in samples.paths:
        paths[path] = {}
        for metric, _, unit, _, _ in samples.columns + OTHER_COLUMNS:
            ratio = samples.ratio(path, metric, BASE)
            cores = samples.cores[path, metric]
            paths[path][metric] = {
                "unit": unit,
                "median": samples.median(path, metric),
                "samples": samples.all(path, metric),
                "ratio": ratio and {"median": ratio[0], "min": ratio[1], "max": ratio[2]},
                "cores": median(cores) if cores else None,
            }
    others = {
        f"{path}.{metric}": samples.all(path, metric)
        for path, metric in list(samples.values)
        if metric.startswith(("first_", "restart_", "idle_")) and samples.all(path, metric)
    }
    listed = [dict(zip(("what", "target", "measured", "met"), (w.strip(), b, s, m))) for w, b, s, m in found]
    return {"about": about, "paths": paths, "others": others, "targets": listed}


def as_svg(samples, about):
    """Bars of the ratios to the base, with their ranges; a group for each metric."""
    paths = [path for path in samples.paths if path != BASE]
    bar, space, left, top, height = 15, 22, 52, 64, 300
    limit = 2.0
    group = len(paths) * bar + space
    width = left + len(samples.columns) * group + 16

    def at(ratio):
        return top + height * (1 - min(ratio, limit) / limit)

    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {top + height + 54}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{top + height + 54}" fill="white"/>',
        f'<text x="{left}" y="20" font-size="14">Ratio to kernel forwarding: median of {about["rounds"]} rounds, '
        "and range. Latency: less is better.</text>",
    ]
    x = left
    for path in paths:
        lines.append(f'<rect x="{x}" y="32" width="11" height="11" fill="{COLOURS[path]}"/>')
        lines.append(f'<text x="{x + 16}" y="42">{path}</text>')
        x += 34 + 8 * len(path)
    for step in range(0, 9):
        ratio = step / 4
        y = at(ratio)
        colour = "#333" if ratio == 1 else "#ddd"
        lines.append(f'<line x1="{left}" y1="{y:.1f}" x2="{width - 8}" y2="{y:.1f}" stroke="{colour}"/>')
        lines.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{ratio:.2f}</text>')
    for index, (metric, heading, _, _, _) in enumerate(samples.columns):
        x = left + index * group + space / 2
        middle = x + len(paths) * bar / 2
        lines.append(f'<text x="{middle:.1f}" y="{top + height + 22}" text-anchor="middle">{heading}</text>')
        for path in paths:
            ratio = samples.ratio(path, metric, BASE)
            if ratio:
                y = at(ratio[0])
                lines.append(
                    f'<rect x="{x:.1f}" y="{y:.1f}" width="{bar - 2}" height="{top + height - y:.1f}" '
                    f'fill="{COLOURS[path]}"><title>{path}, {heading}: {ratio[0]:.2f} '
                    f"({ratio[1]:.2f}–{ratio[2]:.2f})</title></rect>"
                )
                centre = x + (bar - 2) / 2
                lines.append(
                    f'<line x1="{centre:.1f}" y1="{at(ratio[1]):.1f}" x2="{centre:.1f}" y2="{at(ratio[2]):.1f}" '
                    'stroke="black"/>'
                )
                if ratio[0] > limit:
                    # Cut off: the number stands in the bar.
                    lines.append(
                        f'<text x="{centre + 4:.1f}" y="{top + 6}" text-anchor="end" font-size="10" '
                        f'transform="rotate(-90 {centre + 4:.1f} {top + 6})">{ratio[0]:.1f}</text>'
                    )
            x += bar
    lines.append(
        f'<text x="{left}" y="{top + height + 44}" fill="#555">{about["processors"]} × {about["processor"]}, '
        f'Linux {about["kernel"]}, {about["date"][:10]}</text>'
    )
    return "\n".join([*lines, "</svg>", ""])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("about", help="what was measured, where and when, as JSON")
    parser.add_argument("samples", help="a JSON object per line: path, metric, round, value, cores")
    parser.add_argument("--json", help="write everything there")
    parser.add_argument("--svg", help="write a plot of the ratios there")
    args = parser.parse_args()
    with open(args.about, encoding="utf-8") as file:
        about = json.load(file)
    with open(args.samples, encoding="utf-8") as file:
        samples = Samples(file)
    found = targets(samples, about)
    report(samples, about, found, sys.stdout)
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump(as_json(samples, about, found), file, indent=1, ensure_ascii=False)
            file.write("\n")
    if args.svg:
        with open(args.svg, "w", encoding="utf-8") as file:
            file.write(as_svg(samples, about))


if __name__ == "__main__":
    main()
