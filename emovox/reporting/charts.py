"""Figures of a dataset for its page: a picture, its numbers as a table, and words for both."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from emovox.emotions import EMOTIONS
from emovox.reporting import svg
from emovox.reporting.aggregates import QUANTILES, Aggregates, Coverage, Logits, Skew, as_shares

Row = tuple[str, ...]
QUARTERS = (0.0, 25.0, 50.0, 75.0, 100.0)


@dataclass(frozen=True)
class Figure:
    """A figure of the page.

    Attributes:
        key: for links.
        title, caption: above and below it.
        picture: SVG, with its words for those who cannot see it.
        header, rows: its numbers.
    """

    key: str
    title: str
    caption: str
    picture: str
    header: Row
    rows: Sequence[Row]


def emotions_figure(found: Aggregates, other: Aggregates | None) -> Figure:
    """Frames by dominant emotion on a log axis (paper, Figure 4)."""
    both = [found, other] if other else [found]
    series = [as_shares(a.frames) if other else a.frames.astype(float) for a in both]
    low, high = _log_range(np.concatenate(series), counts=other is None)
    show = percent if other else lambda value: f"{value:,.0f}"
    plot = svg.emotion_rows((math.log10(low), math.log10(high)), right=70)
    ticks = svg.decades(low, high)
    ticks = ticks[:: math.ceil(len(ticks) / 7)]
    plot.upright(ticks, lambda tick: percent(10**tick) if other else svg.short(10**tick))
    height = 12.0 if other else 22.0
    for place, values in enumerate(series):
        for k in range(len(EMOTIONS)):
            y = plot.middle(k) + (14 * place - 13 if other else -11)
            stop = plot.x(math.log10(values[k])) if values[k] > 0 else plot.left
            kind = f"o{k}" if place else f"e{k}"
            plot.add(svg.rect(plot.left, y, stop - plot.left, height, kind))
            plot.add(svg.text(stop + 6, y + height / 2 + 4, show(values[k]), "small number"))
    names = [f"{a.name} {a.version}" for a in both]
    header = ("emotion", *(word for name in names for word in (f"frames, {name}", "share")))
    rows = [
        (emotion, *(word for a in both for word in _count_and_share(a.frames, k)))
        for k, emotion in enumerate(EMOTIONS)
    ]
    alt = "Frames by dominant emotion, log axis: " + "; ".join(f"{r[0]} {r[1]}" for r in rows)
    caption = "Frames by their largest logit, on a log axis (the paper's Figure 4)."
    if other:
        caption += f" Filled: {names[0]}. Outlined: {names[1]}. Shares, whatever their sizes."
    picture = plot.drawing("share of frames" if other else "frames", alt)
    return Figure("emotions", "Dominant emotion per frame", caption, picture, header, rows)


def logits_figure(found: Logits, other: Logits | None, other_name: str) -> Figure:
    """How the logits of each emotion are distributed: a ridge for each."""
    edges, tall = found.edges, 44.0
    plot = svg.emotion_rows((float(edges[0]), float(edges[-1])), top=26)
    plot.upright(svg.nice_ticks(float(edges[0]), float(edges[-1]), 6), lambda tick: f"{tick:g}")
    both = [_as_densities(x.counts) for x in (found, other) if x]
    peak = max(float(values.max(initial=0)) for values in both) or 1.0
    centres = [plot.x(value) for value in (edges[1:] + edges[:-1]) / 2]
    for k in range(len(EMOTIONS)):
        base = plot.middle(k) + 8
        ridges = [
            [(x, base - tall * float(v) / peak) for x, v in zip(centres, values[k], strict=True)]
            for values in both
        ]
        ends = [(centres[0], base), *ridges[0], (centres[-1], base)]
        plot.add(svg.path(ends, f"area e{k}"), svg.line(plot.left, base, plot.end, base, "base"))
        if other:
            plot.add(svg.path(ridges[1], "line compare"))
        if not math.isnan(found.quantiles[k, 2]):
            x = min(max(plot.x(found.quantiles[k, 2]), plot.left), plot.end)
            plot.add(svg.line(x, base - 6, x, base + 4, "median"))
    rows = [
        (
            emotion,
            *(shown(value) for value in (found.mean[k], found.deviation[k], *found.quantiles[k])),
        )
        for k, emotion in enumerate(EMOTIONS)
    ]
    header = ("emotion", "mean", "deviation", *(f"{100 * q:g} %" for q in QUANTILES))
    alt = "Histograms of logits; medians: " + "; ".join(f"{r[0]} {r[5]}" for r in rows)
    caption = "Each emotion's logit over all frames, to one scale; the tick is the median."
    if other:
        caption += f" Line: {other_name}."
    return Figure("logits", "Logits", caption, plot.drawing("logit", alt), header, rows)


def coverage_figure(found: Coverage) -> Figure:
    """Tracks by the share of their grid points that have a face."""
    total, most = int(found.counts.sum()), float(found.counts.max(initial=1)) or 1.0
    plot = svg.Plot((0, 100), (0, most), 190)
    plot.across(svg.whole_ticks(0, most, 4), svg.short)
    plot.upright(QUARTERS, lambda tick: f"{tick:g} %", grid=False)
    step, rows = 100 / len(found.counts), []
    for k, count in enumerate(found.counts):
        if count:
            name = f"{k * step:g} to {(k + 1) * step:g} %"
            # One track among thousands is to be seen, too.
            height = max(plot.bottom - plot.y(count), 1.5)
            wide = plot.x(step) - plot.x(0) - 2
            x, y = plot.x(k * step) + 1, plot.bottom - height
            plot.add(svg.rect(x, y, wide, height, "bar", f"{name}: {count:,} tracks"))
            rows.append((name, f"{count:,}", percent(count / total)))
    alt = f"Histogram of coverage: {found.num_full:,} of {total:,} tracks have no gap."
    caption = (
        "Tracks by n_frames / n_expected, the share of grid points at which a face was seen: "
        f"{found.num_full:,} of {total:,} have no gap."
    )
    picture = plot.drawing("frames of those expected", alt)
    header = ("coverage", "tracks", "share")
    return Figure("coverage", "Coverage of tracks", caption, picture, header, rows)


def skew_figure(identities: Skew, videos: Skew) -> Figure:
    """Lorenz curves of frames over identities and over videos."""
    groups = {"identities": (identities, "line one"), "videos": (videos, "line two")}
    plot = svg.Plot((0, 100), (0, 100), 268)
    plot.across(QUARTERS, lambda tick: f"{tick:g} %")
    plot.upright(QUARTERS, lambda tick: f"{tick:g} %", grid=False)
    plot.curve([(0, 0), (100, 100)], "line equal")
    for name, (skew, kind) in groups.items():
        if skew.num_groups:
            plot.curve(enumerate(100 * skew.lorenz), kind, name)
    entries = [(kind, name, "") for name, (_, kind) in groups.items()]
    plot.key(entries, plot.left + 14, plot.top + 22, 0)
    rows = [
        (
            name,
            f"{skew.num_groups:,}",
            f"{skew.gini:.3f}",
            percent(skew.largest),
            percent(skew.tenth),
        )
        for name, (skew, _) in groups.items()
    ]
    alt = "Lorenz curves of frames. " + "; ".join(
        f"{row[0]}: Gini {row[2]}, the largest tenth holds {row[4]}" for row in rows
    )
    caption = (
        "Share of all frames that the smallest identities and videos hold; even spread would be "
        "the diagonal."
    )
    header = ("", "groups", "Gini", "largest", "largest tenth")
    picture = plot.drawing("smallest identities or videos", alt)
    return Figure("skew", "Frames per identity and video", caption, picture, header, rows)


def people_figure(identities: Skew, videos: Skew) -> Figure:
    """How the share of each emotion differs between identities."""
    plot = svg.emotion_rows((0, 100))
    plot.upright(QUARTERS, lambda tick: f"{tick:g} %")
    for k in range(len(EMOTIONS)):
        if np.isnan(identities.shares[k]).any():
            continue
        low, inner_low, median, inner_high, high = map(plot.x, 100 * identities.shares[k])
        y = plot.middle(k)
        plot.add(svg.rect(low, y - 2, max(high - low, 1), 4, f"e{k} faint"))
        plot.add(svg.rect(inner_low, y - 8, max(inner_high - inner_low, 1), 16, f"e{k}"))
        plot.add(svg.line(median, y - 11, median, y + 11, "median"))
    rows = [
        (
            emotion,
            percent(identities.shares[k, 2]),
            f"{int(identities.having[k]):,}",
            percent(identities.top[k]),
            f"{int(videos.having[k]):,}",
            percent(videos.top[k]),
        )
        for k, emotion in enumerate(EMOTIONS)
    ]
    alt = "Spread of each emotion's share between identities; medians: " + "; ".join(
        f"{row[0]} {row[1]}" for row in rows
    )
    caption = (
        "Share of an identity's frames in which an emotion is dominant: median, middle half, 5 to "
        "95 % of identities. The numbers say in how many identities and videos it occurs, and what "
        "part of it the one with the most holds."
    )
    header = ("emotion", "median share", "identities", "top identity", "videos", "top video")
    picture = plot.drawing("share of an identity's frames", alt)
    return Figure("people", "Emotions between identities", caption, picture, header, rows)


def percent(share: float) -> str:
    """A share as percent, with three digits; `-` for NaN."""
    if math.isnan(share):
        return "-"
    value = 100 * share
    if 99.95 <= value < 100:
        return "99.9 %"  # not all of it
    return f"{value:.3g} %" if value >= 0.001 or not value else f"{value:.0e} %"


def shown(value: object, digits: int = 3) -> str:
    """A number of a table; `-` for what is none."""
    if not isinstance(value, int | float | np.floating) or math.isnan(value):
        return "-"
    return f"{value:.{digits}f}"


def _log_range(values: np.ndarray, *, counts: bool) -> tuple[float, float]:
    """Ends of a log axis: counts begin below 1, shares below the smallest one's power of ten."""
    known = values[values > 0]
    low = 0.5 if counts else 10 ** math.floor(math.log10(known.min(initial=0.1))) / 2
    return low, max(float(known.max(initial=0)), 20 * low)


def _as_densities(counts: np.ndarray) -> np.ndarray:
    """Histograms `[8, B]` whose bins sum to 1 each; zeros where there is nothing."""
    return np.asarray(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))


def _count_and_share(counts: np.ndarray, k: int) -> Row:
    return f"{int(counts[k]):,}", percent(float(as_shares(counts)[k]))
