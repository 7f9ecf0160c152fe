"""The page of `codeczoo demo`, in Gradio: a tab for each kind of media."""

import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # before gradio is imported: the page works offline

import gradio as gr

from codeczoo import zoo
from codeczoo.core.errors import CodeczooError
from codeczoo.export.batches import Runner
from codeczoo.export.evaluate import label
from codeczoo.export.judges import JUDGES
from codeczoo.export.trial import Trial, prefixes_of

MEDIA = {"image": "Picture", "audio": "Sound", "video": "Clip"}
KEPT = 4  # files whose tokens are kept while sliders move
ROWS = {
    "file_bytes": ("bytes of the file", ".0f"), "payload_bytes": ("bytes of the codes", ".0f"),
    "payload_kbps": ("kbit/s", ".2f"), "file_bpp": ("bits a pixel", ".4f"), "psnr": ("PSNR, dB", ".2f"),
    "ssim": ("SSIM", ".3f"), "mel": ("mel distance", ".3f"), "si_sdr": ("SI-SDR, dB", ".1f"),
    "pesq": ("PESQ", ".2f"), "stoi": ("STOI", ".3f"), "flicker": ("flicker", ".4f"),
}  # fmt: skip


def page(runners: Sequence[Runner]) -> gr.Blocks:
    """The page for these codecs."""
    with gr.Blocks(title="codeczoo") as blocks:
        gr.Markdown("# codeczoo\nWhat is left of a picture, a sound or a clip after it was tokens.")
        for media, title in MEDIA.items():
            own = {zoo.title(r.name): r for r in runners if r.codec.spec.media == media}
            if own:
                with gr.Tab(title):
                    Tab(media, own).build()
    return blocks


class Tab:
    """One kind of media.

    Args:
        media: "image", "audio" or "video".
        runners: codecs for it, by what they are called.
    """

    def __init__(self, media: str, runners: dict[str, Runner]) -> None:
        self.media, self.runners = media, runners
        self._temporary = TemporaryDirectory(prefix="codeczoo-demo-")  # goes with the process
        self.folder = Path(self._temporary.name)
        self.trial = lru_cache(maxsize=KEPT)(self._trial)

    def build(self) -> None:
        """Places the components and says what follows from what."""
        first = next(iter(self.runners))
        with gr.Row():
            codec = gr.Dropdown([*self.runners], value=first, label="Codec")
            beside = gr.Dropdown([*JUDGES[self.media].BASELINES], label="Beside it, at equal bytes")
            slider = self._slider(first)
        with gr.Row():
            source, decoded, other = (self._media(name) for name in ("Original", "Decoded", "Beside it"))
        with gr.Row():
            table = gr.Markdown()
            codes = gr.Textbox(label="Codes", lines=6, interactive=False)
            file = gr.File(label="Token file (.cz)", interactive=False)
        given, shown = [source, codec, slider, beside], [decoded, other, table, codes, file]
        one = {"concurrency_id": self.media, "concurrency_limit": 1}  # whoever comes second waits
        codec.change(self._slider, codec, slider).then(self.show, given, shown, **one)
        for event in (source.change, slider.release, beside.change):
            event(self.show, given, shown, **one)

    def show(self, path: str | None, codec: str, n: float, beside: str) -> tuple[Any, ...]:
        """What the components show of a file at a prefix. Errors become a message on the page."""
        if path is None:
            return None, None, "", "", None
        try:
            trial = self.trial(path, codec)
            done = trial.at(trial.rates[min(int(n), len(trial.rates)) - 1], beside)
        except CodeczooError as error:
            raise gr.Error(str(error)) from None
        names = [name for name in ROWS if name in done.facts or name in done.baseline_facts]
        rows = [f"| {ROWS[n][0]} | {_cell(done.facts, n)} | {_cell(done.baseline_facts, n)} |" for n in names]
        table = "\n".join([f"| | {codec} | {beside} |", "|---|---|---|", *rows])
        return str(done.decoded), str(done.baseline), table, done.codes, str(done.cz)

    def _trial(self, path: str, codec: str) -> Trial:
        return Trial(self.runners[codec], Path(path), self.folder)

    def _slider(self, codec: str) -> gr.Slider:
        rates = prefixes_of(self.runners[codec])
        what = label(rates[-1]).partition(" ")[2].capitalize() or "All of it"
        return gr.Slider(1, len(rates), value=len(rates), step=1, label=what, interactive=len(rates) > 1)

    def _media(self, name: str) -> Any:
        inputs = {"interactive": name == "Original", "label": name}
        if self.media == "image":
            return gr.Image(type="filepath", **inputs)
        return gr.Audio(type="filepath", **inputs) if self.media == "audio" else gr.Video(**inputs)


def _cell(facts: dict[str, float], name: str) -> str:
    return format(facts[name], ROWS[name][1]) if name in facts else ""
