'use strict';
// From an icon's name in one set to the brand it draws. Pure functions: the tests call them directly.

const tables = require('./aliases.cjs');

// Words that say how a logo is drawn, not whose it is. Only stripped at the end of a name, one after another,
// and never the last word left (mdi's "box" stays box).
const VARIANT = {
  logos: new Set(['icon', 'clean', 'mono', 'monochrome', 'monochromatic', 'dark', 'color', 'old', 'official',
    'vertical', 'classic', 'alt', 'wordmark', 'digital', 'round', '2014', '2020']),
  'fa6-brands': new Set(['alt', 'square', 'circle', 'reverse', 'symbol', 'stroke']),
  bxl: new Set(['alt', 'square', 'circle', 'old', 'logo']),
  mdi: new Set(['box', 'circle', 'outline', 'variant', 'face']),
  ri: new Set(['fill', 'line', 'box', 'circle', '2']),
  tabler: new Set(['filled']),
  ion: new Set(['outline', 'sharp']),
  'simple-icons': new Set(),
  cib: new Set(['icon', 'wordmark']),
  devicon: new Set(['wordmark']),
  'skill-icons': new Set(['dark', 'light']),
  'streamline-logos': new Set(['logo', 'block', 'solid', '1', '2', '3', '4']),
  'vscode-icons': new Set(['light', 'official', 'alt']),
  'file-icons': new Set(['alt', 'old', 'icon']),
  'material-icon-theme': new Set(['light']),
  fontisto: new Set(['alt', 'square', 'circle']),
  uil: new Set(['alt']),
};
const PREFIX = {
  logos: [], 'simple-icons': [], bxl: [], ri: [],
  'fa6-brands': ['square-', 'cc-'],
  mdi: ['language-'],
  tabler: ['brand-'],
  ion: ['logo-', 'social-'],
  cib: ['cc-'], devicon: [], 'skill-icons': [], 'streamline-logos': [], 'file-icons': [], 'material-icon-theme': [], fontisto: [], uil: [],
  'vscode-icons': ['file-type-'],
};

// Letters and digits only, lower case, accents off; the signs that tell names apart become words.
function key(text) {
  return text.normalize('NFKD').toLowerCase()
    .replace(/\u00df/g, 'ss').replace(/\u00f8/g, 'o').replace(/\u0142/g, 'l').replace(/\u0111/g, 'd')
    .replace(/^\.(?=\w)/, 'dot').replace(/\+/g, 'plus').replace(/&/g, 'and').replace(/#/g, 'sharp')
    .replace(/[^a-z0-9]/g, '');
}

// The brand of icon `name` in `set`. `title` is the written name where the set has one (simple-icons).
function brand(set, name, title) {
  const own = tables.perIcon[`${set}:${name}`];
  if (own) return own;
  const prefix = PREFIX[set].find((p) => name.startsWith(p)) || '';
  const words = name.slice(prefix.length).split('-');
  while (words.length > 1 && VARIANT[set].has(words[words.length - 1])) words.pop();
  const plain = key(title === undefined ? words.join('-') : title);
  return tables.aliases[plain] || plain;
}

// Is this drawing a brand's? `categories` are the names of the metadata categories it is in.
function isBrand(set, name, categories) {
  if (tables.notBrands.has(`${set}:${name}`)) return false;
  switch (set) {
    case 'mdi': return categories.includes('Brand / Logo') || tables.mdiBrands.has(name);
    case 'ri': return categories.includes('Logos') || tables.riBrands.has(name.replace(/-(fill|line)$/, ''));
    case 'tabler': return name.startsWith('brand-') || tables.tablerBrands.has(name);
    case 'ion': return name.startsWith('logo-') || name.startsWith('social-') || tables.ionBrands.has(name);
    case 'vscode-icons': return name.startsWith('file-type-');
    case 'fontisto': return categories.includes('Brand');
    case 'uil': return categories.includes('Brand Logos');
    default: return true;
  }
}

// Drawings that cannot be seen on white: the logos set's *-dark ones repeat another drawing in white, for dark pages.
function isInvisible(set, name) {
  return tables.invisible.has(`${set}:${name}`) || (set === 'logos' && name.endsWith('-dark'));
}

// FNV-1a of the label, 32 bits, folded onto 0..99: 60 train, 20 validation, 20 test.
function split(label) {
  let hash = 0x811c9dc5;
  for (const byte of Buffer.from(label, 'utf8')) hash = Math.imul(hash ^ byte, 0x01000193) >>> 0;
  const slot = hash % 100;
  return slot < 60 ? 'train' : slot < 80 ? 'validation' : 'test';
}

module.exports = { key, brand, isBrand, isInvisible, split };
