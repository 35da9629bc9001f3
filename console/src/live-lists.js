// Stands in for the stream of changes of a server that has none: the lists, read again and again, told as if they came
// from the stream.

import { list } from './api.js';

const EVERY = 2000;

const FROM_FULL = { models: ofModel, workers: ofWorker, 'model-instances': ofInstance, 'model-files': ofFile };

/**
 * @param {string} kinds
 * @param {AbortSignal} until
 * @param {(event: string, id: string, data: any) => void} hear
 * @param {() => void} answered called whenever the server has answered
 */
export async function fallback(kinds, until, hear, answered) {
  for (let turn = 1; !until.aborted; turn += 1) {
    /** @type {[string, any][]} */
    const found = [];
    for (const kind of kinds.split(',')) {
      for (const item of await list(`/v1/${kind}`)) found.push([kind, FROM_FULL[kind](item)]);
    }
    answered();
    hear('reset', '', null);
    hear('state', '', found);
    hear('synced', String(turn), null);
    await new Promise((done) => setTimeout(done, EVERY));
  }
}

/** @param {any} one */
function ofModel(one) {
  const source = one.huggingface_repo_id ?? one.ollama_library_model_name ?? one.model_scope_model_id ?? one.local_path;
  const file = one.huggingface_filename ?? one.model_scope_file_path;
  const ready = one.ready_replicas ?? 0;
  const state = one.replicas === 0 ? 'stopped' : ready >= one.replicas ? 'ready' : ready ? 'partly_ready' : 'starting';
  return { ...one, source_text: file ? `${source}/${file}` : source, state, instances: {} };
}

/** @param {any} one */
function ofInstance(one) {
  return { ...one, subordinate_workers: one.distributed_servers?.subordinate_workers };
}

/** @param {any} one */
function ofFile(one) {
  return { ...one, source_text: one.huggingface_repo_id ?? one.model_scope_model_id ?? one.local_path };
}

/** @param {any} one */
function ofWorker(one) {
  const memory = one.status?.memory ?? {};
  return {
    ...one,
    cpu: { total: one.status?.cpu?.total, utilization: one.status?.cpu?.utilization_rate },
    memory: { total: memory.total, claimed: memory.allocated, used: memory.used },
    gpu_devices: (one.status?.gpu_devices ?? []).map((/** @type {any} */ device) => {
      const { total, used, allocated, foreign } = device.memory ?? {};
      const others = Math.min(foreign ?? 0, used ?? 0);
      const whose = used === undefined || used === null ? {} : { used_by_us: used - others, used_by_others: others };
      const free = total === undefined ? undefined : Math.max(0, total - (allocated ?? 0) - (foreign ?? 0));
      return {
        index: device.index,
        name: device.name,
        type: device.type,
        total,
        claimed: allocated,
        free,
        temperature: device.temperature,
        utilization: device.core?.utilization_rate,
        fault: device.fault,
        ...whose,
      };
    }),
  };
}
