// How a machine joins this installation: commands to paste. The token is never shown here, nor in a command line: it is
// read from the server's file and asked for by the new machine.

import { useFetched, Waiting } from '../../parts/page.js';
import { Code } from '../../parts/copy.js';
import { Dialog } from '../../parts/dialog.js';
import { html } from '../../parts/html.js';
import { t } from '../../words.js';
import { shellQuoted } from '../playground/code.js';

const LOCAL = new Set(['localhost', '127.0.0.1', '[::1]']);

/** @param {string} path */
const pathOf = (path) => (/^[\w./-]+$/.test(path) ? path : shellQuoted(path));

/** @param {{onClose: () => void}} props */
export function AddWorker({ onClose }) {
  const { value } = useFetched('/version');
  const { value: settings, fault } = useFetched('/v1/settings');
  const version = value?.version ?? '';
  const set = (/** @type {string} */ name) => /** @type {any} */ (settings)?.items.find((/** @type {any} */ one) => one.name === name);
  const token = set('token');
  const local = LOCAL.has(location.hostname);
  const server = local ? `${location.protocol}//SERVER${location.port ? `:${location.port}` : ''}` : location.origin;
  return html`<${Dialog} title=${t('cluster.add')} onClose=${onClose} wide>
    <ol class="numbered">
      <li>
        <p>${t('add.token')}</p>
        ${token && !token.is_default
          ? html`<p class="muted">${t('add.token-set', { origin: token.origin })}</p>`
          : settings || fault
            ? html`<${Code} text=${`sudo cat ${pathOf(set('data_dir')?.value ?? '/var/lib/gpustack')}/token`} />`
            : html`<${Waiting} lines=${1} />`}
      </li>
      <li>
        <p>${t('add.install', { version })}</p>
        <${Code} text=${'python3 -m venv gpustack\ngpustack/bin/pip install ./gpustack-*.whl'} />
        <p class="muted">${t('add.install-same')}</p>
      </li>
      <li>
        <p>${t('add.start')}</p>
        <${Code} text=${[
          "read -rsp 'Token: ' GPUSTACK_TOKEN && export GPUSTACK_TOKEN && echo",
          `gpustack/bin/gpustack start --server-url ${server}`,
        ].join('\n')} />
        ${local ? html`<p class="muted">${t('add.server-name')}</p>` : null}
      </li>
      <li>
        <p>${t('add.service')}</p>
        <${Code} text=${[
          'sudo install -d -m 0700 /etc/gpustack',
          "read -rsp 'Token: ' token && echo",
          `printf 'GPUSTACK_SERVER_URL=%s\\nGPUSTACK_TOKEN=%s\\n' ${server} "$token" \\\n  | sudo install -m 0600 /dev/stdin /etc/gpustack/gpustack.env`,
          'sudo systemctl enable --now gpustack-worker',
        ].join('\n')} />
        <p class="muted">${t('add.service-where')}</p>
      </li>
    </ol>
    <p>${t('add.then')}</p>
  <//>`;
}
