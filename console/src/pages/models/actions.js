// What is done with a model from a list and from its own page: scaled, stopped, started, deleted.

import { del, get, put } from '../../api.js';
import { store } from '../../live.js';
import { confirm } from '../../parts/dialog.js';
import { toast } from '../../parts/toast.js';
import { t } from '../../words.js';

const NAMED = 5;

/** Instances in words: the first few, with where they are. @param {any[]} instances */
function inWords(instances) {
  const names = instances.slice(0, NAMED).map((one) => {
    const worker = store.workers.value.get(one.worker_id)?.name;
    return worker ? t('models.on', { name: one.name, worker }) : one.name;
  });
  return names.join(', ') + (instances.length > NAMED ? t('models.more', { n: instances.length - NAMED }) : '');
}

/** @param {any} model brief */
const living = (model) => (store.byModel.value.get(model.id) ?? []).filter((one) => !one.deleted_at);

/** @param {any} model brief @param {number} replicas */
export async function scale(model, replicas) {
  if (replicas === 0) {
    const there = living(model);
    const sure = { title: t('models.stop-title', { name: model.name }), text: t('models.stop-text', { instances: inWords(there) }), submit: t('models.stop'), danger: true };
    if (there.length && !(await confirm(sure))) return;
  }
  await put(`/v1/models/${model.id}`, { replicas });
  toast(replicas ? t('models.scaled', { name: model.name, n: replicas }) : t('models.stopped', { name: model.name }));
}

/** As many replicas as there were before it was stopped. @param {any} model brief */
export async function start(model) {
  const { items } = await get(`/v1/models/${model.id}/revisions`);
  const stopped = items.find((/** @type {any} */ one) => one.fields?.replicas?.to === 0);
  await scale(model, stopped?.fields.replicas.from || 1);
}

/** Resolves with whether it was deleted. @param {any} model brief */
export async function remove(model) {
  const there = living(model);
  const text = there.length ? t('models.delete-text', { instances: inWords(there) }) : t('models.delete-none');
  if (!(await confirm({ title: t('models.delete-title', { name: model.name }), text, submit: t('common.delete'), danger: true }))) return false;
  await del(`/v1/models/${model.id}`);
  toast(t('models.deleted', { name: model.name }));
  return true;
}
