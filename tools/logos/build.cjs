'use strict';
// Builds the real-logo corpus from pinned npm packages. What it makes and why: docs/corpus.md.
//
//   OUTDIR/svg/<set>/<name>.svg   one drawing a file
//   OUTDIR/logos.csv              path,label,set,split
//   OUTDIR/training.csv           the same columns: the training and validation rows, and what further sets draw of the training brands
//   OUTDIR/stamp.json             what it was built from; a second call with the same finishes at once
//
// Everything is made in a folder beside OUTDIR and renamed at the end, so OUTDIR is whole or absent.

const fs = require('fs');
const path = require('path');
const crypto = require('crypto');
const { execFileSync } = require('child_process');
const packages = require('./packages.cjs');
const { key, brand, isBrand, isInvisible, split } = require('./names.cjs');

const LONGEST_SIDE = 256;

class Failure extends Error {}
const fail = (what, why) => { throw new Failure(`${what}: ${why}`); };
const sha256 = (data) => crypto.createHash('sha256').update(data).digest('hex');

function main(argv) {
  if (argv.length !== 1 || argv[0].startsWith('-')) {
    process.stderr.write('usage: tools/logos/build OUTDIR\n');
    return 2;
  }
  const out = path.resolve(argv[0]);
  const stamp = makeStamp();
  const stampFile = path.join(out, 'stamp.json');
  if (fs.existsSync(stampFile) && fs.readFileSync(stampFile, 'utf8') === stamp) {
    process.stdout.write(`logos: ${out} is up to date\n`);
    return 0;
  }
  if (fs.existsSync(out) && !fs.existsSync(stampFile) && fs.readdirSync(out).length > 0)
    fail(out, 'exists and is not a logo corpus; name an empty or new folder');

  fs.mkdirSync(path.dirname(out), { recursive: true });
  sweep(out);
  const work = `${out}.tmp-${process.pid}`;
  const removeWork = () => fs.rmSync(work, { recursive: true, force: true });
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => { removeWork(); process.exit(1); });
  try {
    fs.mkdirSync(path.join(work, 'corpus'), { recursive: true });
    const written = writeCorpus(readAll(fetchPackages(work)), path.join(work, 'corpus'));
    fs.writeFileSync(path.join(work, 'corpus', 'stamp.json'), stamp);
    replace(path.join(work, 'corpus'), out);
    report(written);
  } finally {
    removeWork();
  }
  return 0;
}

// The versions and the rules: whatever decides the output.
function makeStamp() {
  const rules = ['build.cjs', 'names.cjs', 'aliases.cjs', 'packages.cjs']
    .map((f) => fs.readFileSync(path.join(__dirname, f))).map(sha256);
  const versions = packages.map((p) => `${p.name}@${p.version}`);
  return JSON.stringify({ packages: versions, rules: sha256(rules.join()) }, null, 1) + '\n';
}

// Folders that a killed call left behind (its process is gone).
function sweep(out) {
  const base = path.basename(out);
  for (const entry of fs.readdirSync(path.dirname(out))) {
    if (!entry.startsWith(`${base}.tmp-`) && !entry.startsWith(`${base}.old-`)) continue;
    const pid = Number(entry.slice(base.length + 5));
    if (!Number.isInteger(pid) || pid <= 0) continue;
    let alive = true;
    try { process.kill(pid, 0); } catch (e) { alive = e.code === 'EPERM'; }
    if (!alive) fs.rmSync(path.join(path.dirname(out), entry), { recursive: true, force: true });
  }
}

function replace(from, to) {
  const old = `${to}.old-${process.pid}`;
  if (fs.existsSync(to)) fs.renameSync(to, old);
  fs.renameSync(from, to);
  fs.rmSync(old, { recursive: true, force: true });
}

function fetchPackages(work) {
  const folders = new Map();
  for (const p of packages) {
    const spec = `${p.name}@${p.version}`;
    process.stdout.write(`logos: fetching ${spec}\n`);
    const into = path.join(work, 'packages', p.set);
    fs.mkdirSync(into, { recursive: true });
    let answer;
    try {
      answer = execFileSync('npm', ['pack', spec, '--json', '--ignore-scripts', '--pack-destination', into],
        { cwd: work, encoding: 'utf8', maxBuffer: 1 << 28, stdio: ['ignore', 'pipe', 'pipe'] });
    } catch (e) {
      fail(spec, e.code === 'ENOENT' ? 'npm not found: install it'
        : `npm could not fetch it: ${String(e.stderr || e.message).trim().split('\n').slice(-3).join(' | ')}`);
    }
    const tarballs = fs.readdirSync(into).filter((f) => f.endsWith('.tgz'));
    if (tarballs.length !== 1) fail(spec, `npm left no package file (it said: ${answer.slice(0, 200)})`);
    const file = path.join(into, tarballs[0]);
    const sum = 'sha512-' + crypto.createHash('sha512').update(fs.readFileSync(file)).digest('base64');
    if (sum !== p.integrity) fail(spec, `wrong checksum ${sum}; the package is not the one that was pinned`);
    execFileSync('tar', ['-xzf', file, '-C', into]);
    folders.set(p.set, path.join(into, 'package'));
  }
  return folders;
}

// Every drawing of every set: { set, name, title?, hidden, categories, body, box: [x, y, w, h] }.
function readAll(folders) {
  return packages.flatMap((p) => (p.set === 'simple-icons' ? readSimpleIcons : readIconify)(p.set, folders.get(p.set)));
}

function readSimpleIcons(set, folder) {
  return JSON.parse(fs.readFileSync(path.join(folder, 'data', 'simple-icons.json'), 'utf8')).map(({ slug, title }) => {
    const text = fs.readFileSync(path.join(folder, 'icons', `${slug}.svg`), 'utf8');
    const found = /viewBox="0 0 24 24"[^>]*>\s*<title>[^<]*<\/title>\s*(<path d="[^"]+"\/>)\s*<\/svg>/.exec(text);
    if (!found) fail(`simple-icons/${slug}.svg`, 'not the shape of file expected');
    // Two brands with one title have slugs such as hive and hive_blockchain: there the slug names the brand.
    return { set, name: slug, title: slug.includes('_') ? slug : title, hidden: false, categories: [], body: found[1],
      box: [0, 0, 24, 24] };
  });
}

function readIconify(set, folder) {
  const json = (file) => JSON.parse(fs.readFileSync(path.join(folder, file), 'utf8'));
  const data = json('icons.json');
  const categories = new Map();
  for (const [category, names] of Object.entries(json('metadata.json').categories || {}))
    for (const name of names) categories.set(name, [...(categories.get(name) || []), category]);
  return Object.entries(data.icons).map(([name, icon]) => {
    const pick = (field, otherwise) => icon[field] ?? data[field] ?? otherwise;
    if (icon.rotate || icon.hFlip || icon.vFlip) fail(`${set}:${name}`, 'is transformed, which this script does not do');
    return { set, name, hidden: Boolean(icon.hidden), categories: categories.get(name) || [], body: icon.body,
      box: [pick('left', 0), pick('top', 0), pick('width', 16), pick('height', 16)] };
  });
}

function svg({ body, box }) {
  const [, , w, h] = box;
  const scale = LONGEST_SIDE / Math.max(w, h);
  const side = (v) => Math.max(1, Math.round(v * scale));
  const links = body.includes('xlink:') ? ' xmlns:xlink="http://www.w3.org/1999/xlink"' : '';
  return `<svg xmlns="http://www.w3.org/2000/svg"${links} width="${side(w)}" height="${side(h)}" viewBox="${box.join(' ')}">` +
    `${body.replace(/currentColor/g, '#000')}</svg>\n`;
}

function writeCorpus(icons, folder) {
  const extra = new Set(packages.filter((p) => p.kind === 'training').map((p) => p.set));
  const rows = label(icons.filter((icon) => !extra.has(icon.set)));
  const more = label(icons.filter((icon) => extra.has(icon.set)), trainingBrands(rows));
  const byPath = (a, b) => (a.path < b.path ? -1 : a.path > b.path ? 1 : 0);
  const write = (name, table) => fs.writeFileSync(path.join(folder, name),
    'path,label,set,split\n' + table.sort(byPath).map((r) => `${r.path},${r.label},${r.set},${r.split}\n`).join(''));
  for (const { set } of packages) fs.mkdirSync(path.join(folder, 'svg', set), { recursive: true });
  for (const row of [...rows, ...more]) fs.writeFileSync(path.join(folder, row.path), row.text);
  write('logos.csv', rows);
  write('training.csv', [...rows.filter((r) => r.split === 'train' || r.split === 'validation'), ...more]);
  return { rows, more };
}

// A name that only a further set has may be another spelling of a test brand, so further sets add no brands.
function trainingBrands(rows) {
  return new Set(rows.filter((r) => r.split === 'train').map((r) => r.label));
}

// Labels and splits, and what is left out: white drawings, those that repeat another of the same brand and set byte
// for byte, and glyphs that may be an unlabelled drawing of a brand. With `only`: drawings of these brands and nothing else.
function label(icons, only) {
  const rows = [];
  const drawn = new Set();
  const brandTexts = new Set();
  const brands = new Set();
  const glyphs = [];
  for (const icon of icons) {
    if (isInvisible(icon.set, icon.name)) continue;
    const text = svg(icon);
    if (!isBrand(icon.set, icon.name, icon.categories)) { if (!only) glyphs.push({ icon, text }); continue; }
    const name = brand(icon.set, icon.name, icon.title);
    if (only && !only.has(name)) continue;
    const row = { path: `svg/${icon.set}/${icon.name}.svg`, label: name, set: icon.set, text };
    if (!/^[a-z0-9]+$/.test(row.label)) fail(`${icon.set}:${icon.name}`, `makes no label (${row.label})`);
    row.split = split(row.label);
    const same = `${row.set} ${row.label} ${sha256(text)}`;
    if (drawn.has(same)) continue;
    drawn.add(same);
    brandTexts.add(text);
    brands.add(row.label);
    rows.push(row);
  }
  for (const { icon, text } of glyphs) {
    if (brandTexts.has(text) || (icon.hidden && namesBrand(icon.name, brands))) continue;
    rows.push({ path: `svg/${icon.set}/${icon.name}.svg`, label: `glyph:${icon.set}/${icon.name}`, set: icon.set,
      split: 'distractor', text });
  }
  return rows;
}

// Withdrawn glyphs have lost their categories. One whose first words are a brand's name is left out: a distractor
// less costs nothing, a brand among the distractors is a wrong "wrong answer".
function namesBrand(name, brands) {
  const words = name.replace(/^(ios|md|android)-/, '').split('-');
  return words.some((_, i) => brands.has(key(words.slice(0, i + 1).join('-'))));
}

function report({ rows, more }) {
  const brands = new Map();
  let distractors = 0;
  const splits = {};
  for (const r of rows) {
    if (r.split === 'distractor') { distractors++; continue; }
    if (!brands.has(r.label)) brands.set(r.label, new Set());
    brands.get(r.label).add(r.set);
    splits[r.split] = (splits[r.split] || 0) + 1;
  }
  const atLeast = (n) => [...brands.values()].filter((s) => s.size >= n).length;
  const shares = Object.entries(splits).sort().map(([name, n]) => `${name} ${n}`).join(', ');
  process.stdout.write(`logos: ${rows.length - distractors} brand images (${shares}), ` +
    `${brands.size} brands, ${atLeast(2)} in at least two sets, ${atLeast(3)} in at least three; ${distractors} distractors; ${more.length} further drawings of ` +
    `${new Set(more.map((r) => r.label)).size} training brands\n`);
}

try {
  process.exitCode = main(process.argv.slice(2));
} catch (e) {
  if (!(e instanceof Failure) && !e.code) throw e;
  process.stderr.write(`logos: ${e.message}\n`);
  process.exitCode = 1;
}
