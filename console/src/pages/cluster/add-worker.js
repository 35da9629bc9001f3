// How a machine joins this installation: commands to paste. The token is never shown here, nor in a command line: it is
// read from the server's file and asked for by the new machine.

import { useFetched } from '../../parts/page.js';
import { Code } from '../../parts/copy.js';
import { Dialog } from '../../parts/dialog.js';
import { html } from '../../parts/html.js';
import { t } from '../../words.js';

const LOCAL = new Set(['localhost', '127.0.0.1', '[::1]']);

/** @param {{onClose: () => void}} props */
export function AddWorker({ onClose }) {
  const { value } = useFetched('/version');
  const version = value?.version ?? '';
  const local = LOCAL.has(location.hostname);
  const server = local ? `${location.protocol}//SERVER${location.port ? `:${location.port}` : ''}` : location.origin;
  return html`<${Dialog} title=${t('cluster.add')} onClose=${onClose} wide>
    <ol class="numbered">
      <li>
        <p>${t('add.token')}</p>
        <${Code} text="sudo cat /var/lib/gpustack/token" />
        <p class="muted">${t('add.token-where')}</p>
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
