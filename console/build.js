// Puts what browsers are given into gpustack/api/static: the two documentation programs and everyone's licences.
// The pages that load them are gpustack/api/pages.

import fs from 'node:fs';
import path from 'node:path';

const here = import.meta.dirname;
const out = path.resolve(here, process.argv[2] ?? '../gpustack/api/static');
const modules = path.join(here, 'node_modules');

const taken = [
  'swagger-ui-dist/swagger-ui-bundle.js',
  'swagger-ui-dist/swagger-ui.css',
  'redoc/bundles/redoc.standalone.js',
];

// A map comment makes a browser with its tools open ask for files that are not there; ReDoc fetches its maker's logo.
const alone = (text) => text.replaceAll('https://cdn.redoc.ly/redoc/logo-mini.svg', 'data:,').replace(/\s*(\/\/|\/\*)# sourceMappingURL=\S{1,100}\s*(\*\/)?\s*$/, '\n');

function* packages(folder) {
  for (const entry of fs.readdirSync(folder, { withFileTypes: true })) {
    if (!entry.isDirectory() || entry.name === '.bin') continue;
    const inside = path.join(folder, entry.name);
    if (entry.name.startsWith('@')) {
      yield* packages(inside);
      continue;
    }
    if (fs.existsSync(path.join(inside, 'package.json'))) yield inside;
    const nested = path.join(inside, 'node_modules');
    if (fs.existsSync(nested)) yield* packages(nested);
  }
}

function licence(folder) {
  const { name, version, license } = JSON.parse(fs.readFileSync(path.join(folder, 'package.json'), 'utf8'));
  const texts = fs
    .readdirSync(folder)
    .filter((file) => /^(licen[cs]e|notice|copying)/i.test(file))
    .sort()
    .map((file) => fs.readFileSync(path.join(folder, file), 'utf8').trim());
  const named = typeof license === 'string' ? license : (license?.type ?? 'see its text');
  return [`${name} ${version} (${named})`, ...texts].join('\n\n');
}

fs.rmSync(out, { recursive: true, force: true });
fs.mkdirSync(out, { recursive: true });
for (const file of taken) {
  const text = fs.readFileSync(path.join(modules, file), 'utf8');
  fs.writeFileSync(path.join(out, path.basename(file)), alone(text));
}
const notices = taken
  .map((file) => path.join(modules, `${file}.LICENSE.txt`))
  .filter((file) => fs.existsSync(file))
  .map((file) => `Notices inside ${path.basename(file, '.LICENSE.txt')}\n\n${fs.readFileSync(file, 'utf8').trim()}`);
const licences = [...new Set([...packages(modules)].map(licence))].sort();
const rule = `\n\n${'-'.repeat(78)}\n\n`;
fs.writeFileSync(path.join(out, 'THIRD-PARTY-LICENSES.txt'), [...licences, ...notices].join(rule) + '\n');
