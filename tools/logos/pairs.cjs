'use strict';
// A contact sheet of random cross-set pairs, to look at:   node tools/logos/pairs.cjs CORPUS SHEET.svg [SEED [COUNT [FIRST]]]
// Each pair: a brand drawn by at least two sets (each brand at most once), two of its sets, one drawing of each, all
// uniformly at random. FIRST..FIRST+COUNT-1 of the seed's order go on the sheet. Render with
//   rsvg-convert SHEET.svg -o SHEET.png      (Debian: librsvg2-bin)
const fs = require('fs');
const path = require('path');

const [corpus, sheet, seed = '1', count = '100', first = '0'] = process.argv.slice(2);
if (!sheet) {
  process.stderr.write('usage: node tools/logos/pairs.cjs CORPUS SHEET.svg [SEED [COUNT [FIRST]]]\n');
  process.exit(2);
}

// mulberry32: 32-bit state, good enough to shuffle a few thousand names.
let state = Number(seed) >>> 0;
function random(below) {
  state = (state + 0x6d2b79f5) >>> 0;
  let t = Math.imul(state ^ (state >>> 15), state | 1);
  t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
  return Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * below);
}
const take = (list) => list.splice(random(list.length), 1)[0];

const brands = new Map();
for (const line of fs.readFileSync(path.join(corpus, 'logos.csv'), 'utf8').trim().split('\n').slice(1)) {
  const [file, label, set, split] = line.split(',');
  if (split === 'distractor') continue;
  if (!brands.has(label)) brands.set(label, new Map());
  const sets = brands.get(label);
  sets.set(set, [...(sets.get(set) || []), file]);
}
const labels = [...brands.keys()].filter((l) => brands.get(l).size >= 2).sort();
const pairs = [];
while (labels.length > 0 && pairs.length < Number(first) + Number(count)) {
  const label = take(labels);
  const sets = [...brands.get(label).keys()];
  pairs.push({ label, files: [take(sets), take(sets)].map((s) => take(brands.get(label).get(s))) });
}

const COLUMNS = 5, CELL_W = 236, CELL_H = 136;
const shown = pairs.slice(Number(first));
const image = (file, x, y) => `<image x="${x}" y="${y}" width="100" height="100" ` +
  `href="data:image/svg+xml;base64,${fs.readFileSync(path.join(corpus, file)).toString('base64')}"/>`;
const cells = shown.map(({ label, files }, i) => {
  const x = (i % COLUMNS) * CELL_W, y = Math.floor(i / COLUMNS) * CELL_H;
  const sets = files.map((f) => f.split('/')[1]).join(' / ');
  return `<rect x="${x + 2}" y="${y + 2}" width="${CELL_W - 4}" height="${CELL_H - 4}" fill="#e4e4e4"/>` +
    image(files[0], x + 10, y + 26) + image(files[1], x + 124, y + 26) +
    `<text x="${x + 6}" y="${y + 14}" font-family="sans-serif" font-size="11">${Number(first) + i + 1} ${label} (${sets})</text>`;
});
fs.writeFileSync(sheet, `<svg xmlns="http://www.w3.org/2000/svg" width="${COLUMNS * CELL_W}" ` +
  `height="${Math.ceil(shown.length / COLUMNS) * CELL_H}"><rect width="100%" height="100%" fill="#fff"/>${cells.join('\n')}</svg>\n`);
