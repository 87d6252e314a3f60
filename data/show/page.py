"""A clip as one self-contained HTML page: plays, and turns where it is 3-D."""

import html
import json
from pathlib import Path

import numpy as np

from data.show.drawing import colour_of, legend
from data.show.poses import Poses
from torchlight.files import atomic_write


def save_html(path: Path, clip: Poses, *, rate: float = 30.0) -> None:
    """Write the page; it needs no network."""
    shown = np.clip(2 * clip.points, -9, 9).round(4).astype(object)
    shown[~clip.seen] = None
    content = {
        "frames": shown.tolist(),
        "bones": clip.skeleton.bones,
        "colours": [
            [colour_of(clip, bone, person) for bone in clip.skeleton.bones]
            for person in range(clip.points.shape[1])
        ],
        "rate": rate,
    }
    title = html.escape(clip.title or path.stem)
    words = (f'<b style="color:{colour}">{word}</b>' for word, colour in legend(clip))
    text = _PAGE.replace("CONTENT", _script_safe(json.dumps(content)))
    text = text.replace("LEGEND", " ".join(words)).replace("TITLE", title)
    with atomic_write(path) as temporary:
        Path(temporary).write_text(text, encoding="utf-8")


def _script_safe(text: str) -> str:
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028")


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>TITLE</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root { color-scheme: light dark; --ink: #222; --paper: #fff; --line: #ccc }
@media (prefers-color-scheme: dark) { :root { --ink: #eee; --paper: #181818; --line: #444 } }
body { margin: 1rem auto; max-width: 44rem; padding: 0 1rem; font: 16px system-ui, sans-serif;
  color: var(--ink); background: var(--paper) }
h1 { font-size: 1.1rem; overflow-wrap: anywhere }
@media (prefers-color-scheme: dark) { canvas, b { filter: brightness(1.35) } }
button { min-height: 2.2rem; padding: 0 .9rem; font: inherit }
label { padding: .3rem 0 }
canvas { width: 100%; border: 1px solid var(--line); border-radius: 6px; touch-action: pan-y }
p { display: flex; flex-wrap: wrap; gap: .5rem; align-items: center }
input[type=range] { flex: 1; min-width: 8rem }
</style></head><body>
<h1>TITLE</h1><canvas id="view" role="img" aria-label="TITLE"></canvas>
<p><button id="play">Pause</button><input id="frame" type="range" min="0" value="0"
  aria-label="Frame"><output id="number"></output></p>
<p id="turns"><button data-turn="0">Front</button><button data-turn="-1.5708">Side</button>
  <span>or drag the picture to turn it</span></p>
<p><label><input id="numbers" type="checkbox"> joint numbers</label> LEGEND</p>
<script>
const clip = CONTENT;
const get = id => document.getElementById(id), view = get("view"), pen = view.getContext("2d");
const solid = clip.frames.some(f => f.some(p => p.some(j => j[0] !== null && j.length > 2)));
let frame = 0, turn = 0, playing = true, drag = null, before = 0;
get("frame").max = clip.frames.length - 1;
get("turns").hidden = !solid;
if (!solid) get("turns").style.display = "none";
function place(joint) {
  if (joint[0] === null) return null;
  const [x, y, z] = [joint[0], joint[1], solid ? joint[2] : 0];
  const half = view.width / 2;
  return [half + half * (x * Math.cos(turn) - z * Math.sin(turn)) * .95, half - half * y * .95];
}
function draw() {
  const size = view.clientWidth * (window.devicePixelRatio || 1);
  view.width = view.height = size;
  pen.lineCap = "round"; pen.lineWidth = size / 150; pen.font = size / 45 + "px system-ui";
  clip.frames[frame].forEach((joints, person) => {
    const places = joints.map(place);
    clip.bones.forEach(([a, b], i) => {
      if (!places[a] || !places[b]) return;
      pen.strokeStyle = clip.colours[person][i];
      pen.beginPath(); pen.moveTo(...places[a]); pen.lineTo(...places[b]); pen.stroke();
    });
    pen.fillStyle = getComputedStyle(document.body).color;
    places.forEach((p, j) => { if (!p) return;
      pen.beginPath(); pen.arc(p[0], p[1], size / 180, 0, 7); pen.fill();
      if (get("numbers").checked) pen.fillText(j, p[0] + size / 120, p[1] - size / 120);
    });
  });
  get("frame").value = frame; get("number").value = frame + " / " + (clip.frames.length - 1);
}
function step(now) {
  if (playing && now - before >= 1000 / clip.rate) {
    before = now; frame = (frame + 1) % clip.frames.length; draw();
  }
  requestAnimationFrame(step);
}
function play(on) { playing = on; get("play").textContent = on ? "Pause" : "Play"; }
get("play").onclick = () => play(!playing);
get("frame").oninput = e => { play(false); frame = +e.target.value; draw(); };
get("numbers").onchange = draw;
document.querySelectorAll("[data-turn]").forEach(b => b.onclick = () => {
  turn = +b.dataset.turn; draw(); });
view.onpointerdown = e => { drag = [e.clientX, turn]; view.setPointerCapture(e.pointerId); };
view.onpointermove = e => { if (drag && solid) {
  turn = drag[1] + (drag[0] - e.clientX) / 150; draw(); } };
view.onpointerup = view.onpointercancel = () => drag = null;
if (matchMedia("(prefers-reduced-motion: reduce)").matches) play(false);
window.onresize = draw; draw(); requestAnimationFrame(step);
</script></body></html>
"""
