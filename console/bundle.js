// Bundles the web console with esbuild.
//
//   core.js       everything that pages share: Preact, signals, shell, store, words, parts   ─┐
//   home.js, …    a page each, fetched when it is opened; they take what they share from core │ all in one folder that is
//   words-en.js   the words of a language                                                     │ named by a hash of its files
//   index.css     the one style sheet                                                        ─┘
//   index.html    the shell, which names that folder

import crypto from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import zlib from 'node:zlib';
import * as esbuild from 'esbuild';

const here = import.meta.dirname;
const SOURCES = path.join(here, 'src');
const PAGES = path.join(SOURCES, 'pages');
/** Bytes of all scripts and styles together, gzipped. */
export const BUDGET = 150_000;
/** Packages that are in core; what else pages import is bundled with them. */
const SHARED = ['preact', 'preact/hooks', '@preact/signals', 'htm'];
const LANGUAGES = ['en', 'zh'];
const CORE = './core.js';

const SETTINGS = {
  absWorkingDir: here,
  bundle: true,
  format: 'esm',
  minify: true,
  charset: 'utf8',
  target: ['chrome109', 'firefox115', 'safari16.4'],
  legalComments: 'none',
  logLevel: 'warning',
  write: false,
};

/** The modules of core, which are all but the pages and their words. */
function modules(folder = SOURCES) {
  return fs.readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const inside = path.join(folder, entry.name);
    if (entry.isDirectory()) return inside === PAGES || entry.name === 'words' ? [] : modules(inside);
    return entry.name.endsWith('.js') && entry.name !== 'before.js' ? [inside] : [];
  });
}

/** Fails where two modules of core export the same name: pages could get either. */
function refuseAmbiguous(files) {
  const seen = new Map();
  for (const file of files) {
    const text = fs.readFileSync(file, 'utf8');
    for (const [, name] of text.matchAll(/^export (?:async )?(?:const|let|function\*?|class) (\w+)/gm)) {
      if (seen.has(name)) throw new Error(`${name} is exported by ${seen.get(name)} and by ${file}: rename one`);
      seen.set(name, file);
    }
  }
}

/** In core: pages and words are files beside it. */
const besides = {
  name: 'besides',
  setup(build) {
    build.onResolve({ filter: /^\.\/pages\/[\w-]+\.js$/ }, (asked) => ({ path: `./${path.basename(asked.path)}`, external: true }));
    build.onResolve({ filter: /^words:/ }, (asked) => ({ path: `./words-${asked.path.slice(6)}.js`, external: true }));
  },
};

/** In pages: what core has is taken from there. */
const fromCore = {
  name: 'from-core',
  setup(build) {
    build.onResolve({ filter: /.*/ }, (asked) => {
      if (!asked.importer.startsWith(SOURCES)) return undefined;
      if (SHARED.includes(asked.path)) return { path: CORE, external: true };
      if (!asked.path.startsWith('.')) return undefined;
      const wanted = path.resolve(asked.resolveDir, asked.path);
      return wanted.startsWith(PAGES + path.sep) || !wanted.startsWith(SOURCES + path.sep) ? undefined : { path: CORE, external: true };
    });
  },
};

/** `words-en`: all files of `src/words/en`, each under its name, so that a new file needs no list. */
function wordsOf(language) {
  const folder = path.join(SOURCES, 'words', language);
  const names = fs.readdirSync(folder).filter((file) => file.endsWith('.js')).map((file) => file.slice(0, -3)).sort();
  const lines = names.map((name, index) => `import w${index} from './${name}.js';`);
  const table = names.map((name, index) => `${JSON.stringify(name)}: w${index}`).join(', ');
  return esbuild.build({
    ...SETTINGS,
    stdin: { contents: `${lines.join('\n')}\nexport default { ${table} };`, resolveDir: folder },
    outfile: `words-${language}.js`,
  });
}

function core() {
  const files = modules();
  refuseAmbiguous(files);
  const all = [...SHARED, ...files.filter((file) => path.basename(file) !== 'main.js')];
  const lines = all.map((file) => `export * from ${JSON.stringify(file)};`);
  return esbuild.build({
    ...SETTINGS,
    stdin: { contents: `import './main.js';\n${lines.join('\n')}`, resolveDir: SOURCES },
    outfile: 'core.js',
    plugins: [besides],
  });
}

function pages() {
  return esbuild.build({
    ...SETTINGS,
    entryPoints: fs.readdirSync(PAGES).filter((file) => file.endsWith('.js')).map((file) => path.join(PAGES, file)),
    outdir: '.',
    splitting: true,
    chunkNames: 'shared-[hash]',
    plugins: [fromCore],
  });
}

const single = (entry, outfile) => esbuild.build({ ...SETTINGS, entryPoints: [path.join(SOURCES, entry)], outfile });

/** All files by name. */
async function compile() {
  const made = await Promise.all([
    core(),
    pages(),
    single('styles/index.css', 'index.css'),
    single('before.js', 'before.js'),
    ...LANGUAGES.map(wordsOf),
  ]);
  return new Map(made.flatMap((one) => one.outputFiles).map((file) => [path.basename(file.path), Buffer.from(file.contents)]));
}

function digest(files) {
  const hash = crypto.createHash('sha256');
  for (const name of [...files.keys()].sort()) hash.update(`${name}\n${files.get(name).length}\n`).update(files.get(name));
  return hash.digest('hex').slice(0, 16);
}

/** Build into `out`; returns the bytes of all together, gzipped. Throws where it does not fit into the budget. */
export async function bundle(out) {
  const files = await compile();
  const version = digest(files);
  const shell = fs.readFileSync(path.join(SOURCES, 'index.html'), 'utf8').replaceAll('{{base}}', `/console/${version}`);
  const folder = path.join(out, version);
  fs.mkdirSync(folder, { recursive: true });
  let bytes = 0;
  for (const [file, content] of [...[...files].map(([name, text]) => [path.join(folder, name), text]), [path.join(out, 'index.html'), Buffer.from(shell)]]) {
    const packed = zlib.gzipSync(content, { level: 9 });
    fs.writeFileSync(`${file}.gz`, packed);
    fs.writeFileSync(file, content);
    bytes += packed.length;
  }
  for (const name of fs.readdirSync(out)) {
    if (name !== version && !name.startsWith('index.html')) fs.rmSync(path.join(out, name), { recursive: true });
  }
  if (bytes > BUDGET) throw new Error(`The console takes ${bytes} bytes gzipped; it may take ${BUDGET}`);
  return bytes;
}

/** Build again whenever a source changes, until interrupted. */
export async function watch(out) {
  let timer;
  const again = async () => {
    try {
      console.log(`built: ${await bundle(out)} bytes gzipped`);
    } catch (fault) {
      console.error(String(fault.message ?? fault));
    }
  };
  await again();
  fs.watch(SOURCES, { recursive: true }, () => {
    clearTimeout(timer);
    timer = setTimeout(again, 100);
  });
}
