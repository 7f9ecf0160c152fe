"""Tables of the page of `codeczoo report`: sizes, probes, tokens, language models."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from codeczoo.cli import language
from codeczoo.cli.drawings import MEASURES
from codeczoo.cli.eval import COLUMNS
from codeczoo.cli.labels import told
from codeczoo.cli.svg import Line, chart, legend
from codeczoo.export.sizes import SIZES

CODEBOOKS = 8  # whose frequencies are drawn
PROBES = {"probe": "decoded", "probe_codes": "codes", "probe_vectors": "codebook vectors"}


def size_table(codec: Mapping[str, Any]) -> str:
    """Bytes of each rate, and each measure of the codec, then of what it is compared with at these bytes."""
    lines = []
    for line in codec["sizes"]:
        shown = {"rate": line["rate"]} | {key.replace("_", " "): f"{line[key]:.0f}" for key in SIZES if key in line}
        for name in (name for name in MEASURES if name in line):
            for system, value in line[name].items():
                beside = "" if system == codec["name"] else f", {system}"
                shown[MEASURES[name] + beside] = format(value, COLUMNS[name])
        lines.append(shown)
    return grid(lines)


def crops(codecs: Sequence[Mapping[str, Any]]) -> list[str]:
    """How many words and faces there were of each size, and how well originals do, of codecs that were asked."""
    rows = []
    for codec in (codec for codec in codecs if "crops" in codec):
        facts = codec["crops"]
        counts = {name.replace("_", " "): n for name, n in facts.items() if name != "originals"}
        own = {MEASURES[name]: value for name, value in facts["originals"].items() if name in MEASURES}
        best = {f"{label}, originals": f"{value:.3f}" for label, value in own.items()}
        rows.append({"codec": codec["name"], **counts, **best})
    return [f"<h3>Text and faces</h3>{grid(rows)}"] if rows else []


def probes(codecs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Accuracies of the probes of all codecs that have one."""
    lines = []
    for codec in (codec for codec in codecs if "probe" in codec):
        for row in codec["rows"]:
            shares = {label: f"{row[name]:.1%}" for name, label in PROBES.items() if name in row}
            whose = codec["name"] if row["system"] == codec["name"] else f"{row['system']} beside {codec['name']}"
            lines.append({"system": whose, "rate": row["rate"], **shares} if shares else {})
    if not lines:
        return []
    about = "".join(f"<p>{escape(codec['name'])}: {told(codec['probe'])}.</p>" for codec in codecs if "probe" in codec)
    return [f"<h3>Labels that can still be read</h3>{about}{grid(list(filter(None, lines)))}"]


def models(codecs: Sequence[Mapping[str, Any]]) -> list[str]:
    """What language models need for the tokens, where there are reports of such."""
    shown = [(codec["name"], facts) for codec in codecs for facts in codec.get("lm", ())]
    tables = [f"<h4>{escape(name)}</h4>{grid(language.lines(facts))}" for name, facts in shown]
    return ["<h3>Language models</h3>", *tables] if tables else []


def tokens(codec: Mapping[str, Any]) -> str:
    """How the codes of one codec are used, and how predictable they are."""
    rows = []
    for use, ngrams in zip(codec["codebooks"], codec["ngrams"], strict=True):
        row: dict[str, Any] = {"stream": use["stream"], "codebook": use["codebook"], "entries": use["vocab_size"]}
        row |= {"codes": ngrams["codes"], "used": bar(use["share"]), "perplexity": f"{use['perplexity']:.0f}"}
        row |= {f"bits, {n} before": f"{bits:.2f}" for n, bits in enumerate(ngrams["bits"])}
        row |= {f"different {n}-grams": count for n, count in enumerate(ngrams["distinct"], 1)}
        rows.append(row | ({} if ngrams["zipf"] is None else {"Zipf": f"{ngrams['zipf']:.2f}"}))
    several = {one["stream"] for one in codec["ngrams"] if one["codebook"]}  # codebooks
    lines = [
        Line(f"{one['stream']} {one['codebook']}" if one["stream"] in several else one["stream"], one["curve"])
        for one in codec["ngrams"][:CODEBOOKS]
    ]
    drawn = chart(lines, "rank of the entry", "share of the codes", log_y=True)
    figure = f'<div class="charts"><figure>{drawn}{legend(lines)}</figure></div>'
    return f"<h4>{escape(codec['name'])}</h4>{grid(rows)}{figure}"


def bar(share: float) -> "Raw":
    """A share, 0..1, as a bar."""
    return Raw(f'<meter value="{share:.4f}"></meter> {share:.1%}')


class Raw(str):
    """HTML, not to be escaped."""


def grid(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table with a column for every key."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    lines = []
    for row in rows:
        values = (row.get(column, "") for column in columns)
        cells = "".join(f"<td>{value if isinstance(value, Raw) else escape(str(value))}</td>" for value in values)
        lines.append(f"<tr>{cells}</tr>")
    return f'<div class="wide"><table><tr>{head}</tr>{"".join(lines)}</table></div>'
