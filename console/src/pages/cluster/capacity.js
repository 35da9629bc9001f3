// Sums over workers and their devices.

/**
 * @param {Iterable<any>} workers
 * @returns {{workers: number, ready: number, devices: number, total: number, claimed: number, ours: number, others: number, free: number}} bytes
 */
export function capacityOf(workers) {
  const sum = { workers: 0, ready: 0, devices: 0, total: 0, claimed: 0, ours: 0, others: 0, free: 0 };
  for (const worker of workers) {
    sum.workers += 1;
    if (worker.state === 'ready') sum.ready += 1;
    const own = sumOf(worker);
    sum.devices += own.devices;
    for (const name of SUMMED) sum[name] += own[name];
  }
  return sum;
}

/** @type {['total', 'claimed', 'ours', 'others', 'free']} */
const SUMMED = ['total', 'claimed', 'ours', 'others', 'free'];
/** Kept as long as the document is the same one. @type {WeakMap<any, any>} */
const sums = new WeakMap();

/** @param {any} worker */
function sumOf(worker) {
  let sum = sums.get(worker);
  if (sum) return sum;
  sum = { devices: 0, total: 0, claimed: 0, ours: 0, others: 0, free: 0 };
  for (const device of worker.gpu_devices ?? []) {
    sum.devices += 1;
    sum.total += device.total ?? 0;
    sum.claimed += device.claimed ?? 0;
    sum.ours += device.used_by_us ?? 0;
    sum.others += device.used_by_others ?? 0;
    sum.free += device.free ?? 0;
  }
  sums.set(worker, sum);
  return sum;
}

/**
 * The instances that hold memory of a device, with the bytes that each holds there.
 *
 * @param {any[]} instances of the worker
 * @param {number} workerId
 * @param {number} index of the device
 * @returns {Array<{instance: any, bytes: number | null}>}
 */
export function holdersOf(instances, workerId, index) {
  const found = [];
  for (const instance of instances) {
    const shares = [instance, ...(instance.subordinate_workers ?? [])].filter((share) => share.worker_id === workerId);
    for (const share of shares) {
      const claimed = share.computed_resource_claim?.vram?.[index];
      if (claimed !== undefined || share.gpu_indexes?.includes(index)) found.push({ instance, bytes: claimed ?? null });
    }
  }
  return found;
}

/** The word for how a worker is, of which the badge is made. @param {any} worker */
export function stateOf(worker) {
  if (worker.barred) return 'barred';
  if (worker.state !== 'ready') return worker.state;
  if (worker.draining) return 'draining';
  return worker.cordoned ? 'cordoned' : 'ready';
}

/** Whether somebody should look at it. @param {any} worker */
export const needsLook = (worker) =>
  stateOf(worker) !== 'ready' || (worker.gpu_devices ?? []).some((/** @type {any} */ device) => device.fault);
