"""Looks and behaviour of the page of `codeczoo report`."""

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 1500px; margin: 2rem auto; padding: 0 1.2rem; }
h1, h2, h3, h4 { line-height: 1.2; } h2 { margin-top: 2.4rem; border-bottom: 1px solid var(--line); }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .6rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--soft); }
.wide { overflow-x: auto; margin: .6rem 0; } .cells th { vertical-align: middle; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(360px, 1fr)); gap: .8rem; }
figure { margin: 0; } figcaption { font-size: 12px; opacity: .75; }
svg { width: 100%; max-width: 520px; } svg text { font: 11px system-ui, sans-serif; fill: currentColor; }
svg .title { font-weight: 600; }
svg .grid { stroke: var(--line); stroke-width: .7; }
.legend span { margin-right: 1.2rem; white-space: nowrap; }
.legend i { display: inline-block; width: 26px; margin-right: .4rem; vertical-align: middle; }
summary { cursor: pointer; font-weight: 600; margin: .5rem 0; } .example { margin-bottom: 1.2rem; }
.cells td { min-width: 130px; } img { max-width: 384px; image-rendering: pixelated; }
video { max-width: 256px; cursor: pointer; }
audio { width: 220px; height: 34px; } button { margin: .2rem 0 .5rem; } meter { width: 80px; } .bad { color: #c33; }
"""

SCRIPT = """
document.querySelectorAll('.together').forEach(button => button.onclick = () => {
  const videos = button.parentElement.querySelectorAll('video');
  const playing = button.dataset.playing === '1';
  videos.forEach(video => { if (playing) video.pause(); else { video.currentTime = 0; video.play(); } });
  button.dataset.playing = playing ? '' : '1';
  button.textContent = playing ? 'play all' : 'stop all';
});
document.querySelectorAll('video').forEach(video => video.onclick = () => {
  if (video.paused) video.play(); else video.pause();
});
document.addEventListener('play', event => {
  if (event.target.tagName !== 'AUDIO') return;
  document.querySelectorAll('audio').forEach(other => { if (other !== event.target) other.pause(); });
}, true);
"""
