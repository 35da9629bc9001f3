// Images that go with a message: chosen, pasted or dropped; read into the page, nothing is uploaded before it is sent.

import { toast } from '../../parts/toast.js';
import { t } from '../../words.js';

export const MOST_IMAGES = 4;
/** Bytes of one image. */
const LARGEST = 10 * 1024 * 1024;

/** @param {Iterable<File>} files @param {number} already @returns {Promise<string[]>} as `data:` addresses */
export async function readImages(files, already) {
  const found = [];
  for (const file of files) {
    if (!/^image\/(png|jpeg|webp|gif)$/.test(file.type)) {
      if (file.type) toast(t('playground.no-image', { name: file.name }), 'bad');
      continue;
    }
    if (file.size > LARGEST) toast(t('playground.large-image', { name: file.name }), 'bad');
    else if (already + found.length >= MOST_IMAGES) toast(t('playground.most-images', { n: MOST_IMAGES }), 'bad');
    else found.push(await dataOf(file));
  }
  return found;
}

/** @param {Blob} file @returns {Promise<string>} */
const dataOf = (file) =>
  new Promise((answer, fail) => {
    const reader = new FileReader();
    reader.onload = () => answer(String(reader.result));
    reader.onerror = () => fail(reader.error);
    reader.readAsDataURL(file);
  });
