"""The page of `codeczoo report`: one HTML file that loads nothing."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from codeczoo.cli.drawings import BITS, MEASURES
from codeczoo.cli.eval import formats_of
from codeczoo.cli.examples import examples
from codeczoo.cli.page_style import SCRIPT, STYLE
from codeczoo.cli.page_tables import crops, grid, models, probes, size_table, tokens
from codeczoo.cli.svg import Line, chart, legend
from codeczoo.core.summary import summary

if TYPE_CHECKING:
    from codeczoo.export.study import Study

NAMES = {"image": "Pictures", "audio": "Sound", "video": "Clips"}
ABOUT = {
    "image": "Bytes are those of whole files. What is compared gets, picture by picture, the bytes of the whole .cz "
    "file, and may shrink the picture to make better use of them.",
    "audio": "Bytes are those of the coded codes, or packets, without headers. What is compared gets the bytes of the "
    "codes.",
    "video": "Bytes are those of whole files, without sound. What is compared gets, clip by clip, the bytes of the "
    "whole .cz file, and may shrink the frames to make better use of them.",
}
LESS_IS_BETTER = ("lpips", "rfid", "flicker", "fvd", "mel", "superb_mel", "stft", "vuv", "f0_cents")


def page(facts: Mapping[str, Any], groups: "Sequence[Sequence[Study]]") -> str:
    """HTML of a report.

    Args:
        facts: what `codeczoo report` writes as JSON.
        groups: of studies that can be compared, in whose order `facts["codecs"]` is.
    """
    codecs = {codec["name"]: codec for codec in facts["codecs"]}
    sections = [section([codecs[study.name] for study in group], group) for group in groups]
    about = ", ".join(f"{key} {value}" for key, value in facts["machine"].items())
    failed = "".join(f"<p class='bad'>{escape(bad['path'])}: {escape(bad['error'])}</p>" for bad in facts["failed"])
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{escape(facts["title"])}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head><body>'
        f"<h1>{escape(facts['title'])}</h1><p>{facts['files']} files, {escape(facts['date'])}. {escape(about)}. "
        f"Measures are means over media as the codec sees them.</p>{failed}"
        f"<h2>Codecs</h2>{overview(facts['codecs'])}{''.join(sections)}<script>{SCRIPT}</script></body></html>\n"
    )


def overview(codecs: Iterable[Mapping[str, Any]]) -> str:
    """Size, tokens, speed and memory of all codecs."""
    rows = []
    for codec in codecs:
        about = summary(codec["spec"])
        row = {"codec": codec["name"], "media": about["media"], "tokens": about["tokens"], "bits": about["bits"]}
        row |= {"parameters": f"{codec['parameters'] / 1e6:.2f} M", "weights": codec["weights_hash"]}
        rows.append(row | pace(codec["speed"]))
    return grid(rows)


def pace(speed: Mapping[str, float]) -> dict[str, str]:
    """How much media a second; of sound, how many times faster than it is played."""
    unit = next((name for name in ("pictures", "seconds", "frames") if name in speed), None)
    if unit is None:
        return {}
    how = {"pictures": "{:.3g} pictures/s", "seconds": "{:.3g} x real time", "frames": "{:.3g} frames/s"}[unit]
    found = {half: how.format(speed[unit] / speed[f"{half}_seconds"]) for half in ("encode", "decode")}
    return found | ({"memory": f"{speed['memory_mib']:.0f} MiB"} if "memory_mib" in speed else {})


def section(codecs: Sequence[Mapping[str, Any]], group: "Sequence[Study]") -> str:
    """All of some codecs that see media alike."""
    media, spec = group[0].spec.media, summary(codecs[0]["spec"])["media"]
    rows = [row for codec in codecs for row in codec["rows"]]
    formats = formats_of(rows)
    numbers = [{name: format(row[name], how) for name, how in formats.items() if name in row} for row in rows]
    parts = [
        f"<h2>{NAMES[media]}: {escape(spec.partition(', ')[2])}</h2><p>{ABOUT[media]}</p>",
        *curves(rows, {codec["name"] for codec in codecs}, media),
        f"<details><summary>All numbers</summary>{grid(numbers)}</details>",
        "<h3>Sizes and quality</h3>",
        *(f"<h4>{escape(codec['name'])}</h4>{size_table(codec)}" for codec in codecs),
        *crops(codecs),
        *probes(codecs),
        f"<h3>Examples</h3>{examples(group)}",
        "<h3>Tokens</h3>",
        *(tokens(codec) for codec in codecs),
        *models(codecs),
    ]
    return f'<section>{"".join(parts)}</section>'


def curves(rows: Sequence[Mapping[str, Any]], own: "set[str]", media: str) -> list[str]:
    """A chart for each measure, and one legend."""
    bits, charts = BITS[media], []
    lines: list[Line] = []
    for name in (name for name in MEASURES if any(name in row for row in rows)):
        lines = []
        for system in dict.fromkeys(row["system"] for row in rows):
            points = sorted((row[bits.name], row[name]) for row in rows if row["system"] == system and name in row)
            lines.append(Line(system, points, system not in own))
        less = ", less is better" if name in LESS_IS_BETTER else ""
        charts.append(f"<figure>{chart(lines, bits.label, MEASURES[name] + less)}</figure>")
    return [legend(lines), f'<div class="charts">{"".join(charts)}</div>']
