// Why a file stays where it is, as `policy/model_file.py` decides it: what an eviction would leave alone.

/** @typedef {{why: 'pinned' | 'used' | 'own' | 'folder' | 'fetching' | 'going' | '', users: any[]}} Kept */

/**
 * The instances that read a file: of the source of their model, or of one of its adapters.
 *
 * @param {any} file its brief document
 * @param {any[]} instances of its worker
 * @param {Map<number, any>} models
 * @param {Map<number, Set<string>>} adapters sources by the id of a model
 */
export function usersOf(file, instances, models, adapters) {
  if (file.local_dir) return [];
  return instances.filter((one) => {
    const model = models.get(one.model_id);
    return model && (sourceOf(model) === sourceOf(file) || adapters.get(model.id)?.has(sourceOf(file)));
  });
}

/** One text for equal sources. @param {any} one a model or a file */
export const sourceOf = (one) => `${one.source}:${one.source_text}`;

/**
 * @param {any} file
 * @param {any[]} users
 * @returns {Kept} an empty reason: it may be removed when room is needed
 */
export function keptBecause(file, users) {
  const of = (/** @type {Kept['why']} */ why) => ({ why, users });
  if (file.deleted_at) return of('going');
  if (file.source === 'local_path') return of('own');
  if (file.local_dir) return of('folder');
  if (users.length) return of('used');
  if (file.pinned) return of('pinned');
  return file.state === 'ready' ? of('') : of('fetching');
}

/**
 * By the id of a model, the sources of its adapters.
 *
 * @param {any[]} models as the API shows them
 */
export function adaptersOf(models) {
  const found = new Map();
  for (const model of models) {
    const sources = (model.lora_adapters ?? []).map((/** @type {any} */ one) => `${one.source}:${readable(one)}`);
    if (sources.length) found.set(model.id, new Set(sources));
  }
  return found;
}

/** As `ModelSource.readable` has it. @param {any} one a document with the fields of a source */
export function readable(one) {
  const repo = one.huggingface_repo_id ?? one.model_scope_model_id ?? one.ollama_library_model_name ?? one.local_path ?? '';
  const text = [repo, one.huggingface_filename ?? one.model_scope_file_path].filter(Boolean).join('/');
  return one.revision ? `${text}@${one.revision}` : text;
}

