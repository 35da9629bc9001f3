// Bundles the web console with esbuild.
//
//   before.js     runs first: the theme, and what this address will need is asked for         ─┐
//   core.js       everything that pages share: Preact, signals, shell, store, words, parts, Home│ all in one folder that is
//   models.js, …  a page each, fetched when it is opened; they take what they share from core   │ named by a hash of its files
//   words-en.js   the words of a language                                                       │
//   index.css     the one style sheet                                                          ─┘
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
/** In core with all that it imports: where most come first, what is shown is then there with the shell. */
const FIRST = path.join(PAGES, 'home.js');

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

/** The first page and what it imports of other pages. */
async function modulesOfFirst() {
  const elsewhere = { name: 'elsewhere', setup: (build) => build.onResolve({ filter: /.*/ }, (asked) => (asked.kind === 'dynamic-import' ? { path: asked.path, external: true } : undefined)) };
  const { metafile } = await esbuild.build({ ...SETTINGS, entryPoints: [FIRST], metafile: true, outdir: '.', packages: 'external', plugins: [elsewhere] });
  return Object.keys(metafile.inputs).map((file) => path.resolve(here, file)).filter((file) => file.startsWith(PAGES + path.sep));
}

/** In core: pages and words are files beside it, but for those that core has. @param {string[]} own */
const besides = (own) => ({
  name: 'besides',
  setup(build) {
    build.onResolve({ filter: /^\.\/pages\/[\w-]+\.js$/ }, (asked) =>
      asked.kind === 'dynamic-import' ? { path: `./${path.basename(asked.path)}`, external: true } : undefined,
    );
    // Imported plainly: for a module that is imported when asked for, esbuild wraps all that it needs into functions.
    build.onLoad({ filter: /src\/paths\.js$/ }, ({ path: file }) => {
      const imports = [];
      const text = fs.readFileSync(file, 'utf8').replace(/import\('(\.\/pages\/[\w-]+\.js)'\)/g, (all, page) => {
        if (!own.includes(path.resolve(SOURCES, page))) return all;
        imports.push(`import * as page${imports.length} from '${page}';`);
        return `Promise.resolve(page${imports.length - 1})`;
      });
      return { contents: `${imports.join('')}${text}` };
    });
    build.onResolve({ filter: /^words:/ }, (asked) => ({ path: `./words-${asked.path.slice(6)}.js`, external: true }));
  },
});

/** In pages: what core has is taken from there. @param {string[]} own */
const fromCore = (own) => ({
  name: 'from-core',
  setup(build) {
    build.onResolve({ filter: /.*/ }, (asked) => {
      if (!asked.importer.startsWith(SOURCES)) return undefined;
      if (SHARED.includes(asked.path)) return { path: CORE, external: true };
      if (!asked.path.startsWith('.')) return undefined;
      const wanted = path.resolve(asked.resolveDir, asked.path);
      if (!wanted.startsWith(SOURCES + path.sep)) return undefined;
      return wanted.startsWith(PAGES + path.sep) && !own.includes(wanted) ? undefined : { path: CORE, external: true };
    });
  },
});

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

function core(own) {
  const files = [...modules(), ...own];
  refuseAmbiguous(files);
  const all = [...SHARED, ...files.filter((file) => path.basename(file) !== 'main.js')];
  const lines = all.map((file) => `export * from ${JSON.stringify(file)};`);
  return esbuild.build({
    ...SETTINGS,
    stdin: { contents: `import './main.js';\n${lines.join('\n')}`, resolveDir: SOURCES },
    outfile: 'core.js',
    plugins: [besides(own)],
  });
}

function pages(own) {
  return esbuild.build({
    ...SETTINGS,
    entryPoints: fs.readdirSync(PAGES).filter((file) => file.endsWith('.js')).map((file) => path.join(PAGES, file)).filter((file) => !own.includes(file)),
    outdir: '.',
    splitting: true,
    chunkNames: 'shared-[hash]',
    plugins: [fromCore(own)],
    metafile: true,
  });
}

/** The files that the page at an address needs beside core, for each pattern of an address. */
async function filesOfPages({ outputs }) {
  const needed = (file) => [file, ...(outputs[file]?.imports ?? []).filter((one) => one.kind === 'import-statement' && !one.external).flatMap((one) => needed(one.path))];
  const { PAGES: all } = await import(`./src/paths.js?${Date.now()}`);
  return all.flatMap((page) => {
    const file = /pages\/([\w-]+\.js)/.exec(String(page.load))?.[1];
    const pattern = `^${page.path.replace(/:\w+/g, '[^/]+')}/?$`;
    return outputs[file] ? [[pattern, [...new Set(needed(file))]]] : [];
  });
}

const single = (entry, outfile, settings = {}) => esbuild.build({ ...SETTINGS, ...settings, entryPoints: [path.join(SOURCES, entry)], outfile });

/** All files by name. */
async function compile() {
  const own = await modulesOfFirst();
  const made = await Promise.all([pages(own), core(own), single('styles/index.css', 'index.css'), ...LANGUAGES.map(wordsOf)]);
  const files = JSON.stringify(await filesOfPages(made[0].metafile));
  made.push(await single('before.js', 'before.js', { format: 'iife', define: { FILES_OF_PAGES: files, LANGUAGES: JSON.stringify(LANGUAGES) } }));
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
