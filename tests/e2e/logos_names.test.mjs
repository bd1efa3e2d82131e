// The rules that turn icon names into brands. No network: node --test tests/e2e/logos_names.test.mjs
import test from 'node:test';
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';

const require = createRequire(import.meta.url);
const { key, brand, isBrand, isInvisible, split } = require('../../tools/logos/names.cjs');
const tables = require('../../tools/logos/aliases.cjs');

const brands = [
  // set, name, title, brand
  ['logos', 'airbnb-icon', , 'airbnb'],
  ['logos', 'nodejs-icon-alt', , 'nodejs'],
  ['logos', 'whatsapp-monochrome-icon', , 'whatsapp'],
  ['logos', 'google-drive-2020', , 'googledrive'],
  ['logos', 'css-3-official', , 'css3'],
  ['logos', 'typescript-icon-round', , 'typescript'],
  ['logos', 'html-5', , 'html5'],
  ['logos', 'auth0', , 'auth0'],
  ['logos', 'd3', , 'd3'],
  ['logos', 'x-ai', , 'xai'],
  ['logos', 'c-plusplus', , 'cplusplus'],
  ['simple-icons', 'cplusplus', 'C++', 'cplusplus'],
  ['simple-icons', 'nextdotjs', 'Next.js', 'nextjs'],
  ['simple-icons', 'dotenv', '.ENV', 'dotenv'],
  ['simple-icons', 'citroen', 'Citroën', 'citroen'],
  ['simple-icons', 'handm', 'H&M', 'handm'],
  ['simple-icons', 'hive_blockchain', 'hive_blockchain', 'hiveblockchain'],
  ['fa6-brands', 'square-x-twitter', , 'x'],
  ['fa6-brands', 'twitter', , 'twitter'],
  ['fa6-brands', 'facebook-f', , 'facebook'],
  ['fa6-brands', 'cc-visa', , 'visa'],
  ['fa6-brands', 'square', , 'square'],
  ['fa6-brands', 'hive', , 'hiveblockchain'],
  ['bxl', 'figma-alt', , 'figma'],
  ['bxl', 'rasberry-pi', , 'raspberrypi'],
  ['mdi', 'box', , 'box'],
  ['mdi', 'language-css3', , 'css3'],
  ['mdi', 'language-r', , 'r'],
  ['mdi', 'microsoft-edge-legacy', , 'edgelegacy'],
  ['mdi', 'vk-circle', , 'vk'],
  ['mdi', 'onepassword', , '1password'],
  ['ri', 'facebook-box-fill', , 'facebook'],
  ['ri', 'line-line', , 'line'],
  ['ri', 'wechat-2-fill', , 'wechat'],
  ['ri', 'edge-fill', , 'edgelegacy'],
  ['ri', 'edge-new-fill', , 'edge'],
  ['tabler', 'brand-4chan', , '4chan'],
  ['tabler', 'brand-x-filled', , 'x'],
  ['tabler', 'brand-vscode', , 'visualstudiocode'],
  ['ion', 'logo-vue', , 'vue'],
  ['ion', 'social-apple-outline', , 'apple'],
  ['ion', 'logo-google-playstore', , 'googleplay'],
  ['cib', 'cc-visa', , 'visa'],
  ['devicon', 'argocd-wordmark', , 'argocd'],
  ['skill-icons', 'vuejs-dark', , 'vue'],
  ['streamline-logos', 'about-me-logo-block', , 'aboutme'],
  ['streamline-logos', '500px-logo-2-solid', , '500px'],
  ['vscode-icons', 'file-type-light-yaml-official', , 'lightyaml'],
  ['vscode-icons', 'file-type-yaml-official', , 'yaml'],
  ['fontisto', 'onedrive', , 'onedrive'],
];

test('a name gives its brand', () => {
  for (const [set, name, title, expected] of brands) assert.equal(brand(set, name, title), expected, `${set}:${name}`);
});

test('one name, two companies: they stay apart', () => {
  for (const [set, name] of [['logos', 'cobalt'], ['logos', 'cockpit'], ['logos', 'element'], ['logos', 'otto'], ['logos', 'gleam']])
    assert.notEqual(brand(set, name), key(name), `${set}:${name}`);
});

test('brands and glyphs of the mixed sets are told apart', () => {
  const cases = [
    ['mdi', 'github', ['Brand / Logo'], true], ['mdi', 'amazon', [], true], ['mdi', 'account-outline', ['Account / User'], false],
    ['ri', 'github-line', ['Logos'], true], ['ri', 'grok-ai-fill', [], true], ['ri', 'apps-fill', ['System'], false],
    ['tabler', 'brand-x', [], true], ['tabler', 'x', [], false],
    ['ion', 'logo-apple', [], true], ['ion', 'share-social', [], false], ['ion', 'logo-euro', [], false],
    ['bxl', 'anything', [], true],
  ];
  for (const [set, name, categories, expected] of cases) assert.equal(isBrand(set, name, categories), expected, `${set}:${name}`);
});

test('white drawings are known', () => {
  assert.ok(isInvisible('logos', 'x-ai-dark'));
  assert.ok(!isInvisible('logos', 'x-ai'));
  assert.ok(!isInvisible('mdi', 'weather-night-dark'));
});

test('aliases lead to a label in one step and are labels themselves', () => {
  for (const [from, to] of [...Object.entries(tables.aliases), ...Object.entries(tables.perIcon)]) {
    assert.match(to, /^[a-z0-9]+$/, from);
    assert.equal(tables.aliases[to], undefined, `${from} -> ${to} -> ${tables.aliases[to]}`);
  }
});

test('the split depends on the label alone: FNV-1a modulo 100', () => {
  assert.equal(split('a'), 'train'); // 0xe40c292c % 100 = 20
  assert.equal(split(''), 'validation'); // 0x811c9dc5 % 100 = 61
  const count = { train: 0, validation: 0, test: 0 };
  for (let i = 0; i < 10000; i++) count[split(`brand${i}`)]++;
  assert.ok(Math.abs(count.train - 6000) < 200 && Math.abs(count.test - 2000) < 200, JSON.stringify(count));
});
