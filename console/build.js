// Puts what browsers are given into gpustack/api/static: the web console, the two documentation programs and
// everyone's licences. With --watch the console alone, again and again.
// The pages that load the documentation programs are gpustack/api/pages.

import fs from 'node:fs';
import path from 'node:path';
import { bundle, watch } from './bundle.js';
import { check } from './check.js';

const here = import.meta.dirname;
const given = process.argv.slice(2).filter((argument) => argument !== '--watch');
const out = path.resolve(here, given[0] ?? '../gpustack/api/static');
const modules = path.join(here, 'node_modules');

const taken = [
  'swagger-ui-dist/swagger-ui-bundle.js',
  'swagger-ui-dist/swagger-ui.css',
  'redoc/bundles/redoc.standalone.js',
];

/** What only builds or tests: nothing of it is in what browsers are given. */
const BUILDERS = new Set(['.bin', 'axe-core', 'esbuild', '@esbuild']);

// A map comment makes a browser with its tools open ask for files that are not there; ReDoc fetches its maker's logo.
const alone = (text) => text.replaceAll('https://cdn.redoc.ly/redoc/logo-mini.svg', 'data:,').replace(/\s*(\/\/|\/\*)# sourceMappingURL=\S{1,100}\s*(\*\/)?\s*$/, '\n');

function* packages(folder) {
  for (const entry of fs.readdirSync(folder, { withFileTypes: true })) {
    if (!entry.isDirectory() || BUILDERS.has(entry.name)) continue;
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

async function everything() {
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
  console.log(`The console takes ${await bundle(path.join(out, 'console'))} bytes gzipped.`);
}

if (process.argv.includes('--watch')) {
  await watch(path.join(out, 'console'));
} else {
  const faults = check();
  if (faults.length) {
    console.error(faults.join('\n'));
    process.exit(1);
  }
  await everything();
}
