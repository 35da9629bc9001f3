export default {
  install: ({ version }) => `On the new machine, install the same version${version ? ` (${version})` : ''}: take the wheel that the server was installed from.`,
  'install-same': 'Linux or macOS with Python 3.11 or newer. Drivers of the GPUs are all that is needed besides.',
  'server-name': 'SERVER stands for the name or address by which the new machine reaches this server; you are looking at it from the server itself.',
  service: 'To have it start with the machine, where the unit gpustack-worker.service is installed:',
  'service-where': 'The unit is in contrib/systemd of the sources.',
  start: 'Start it there. It asks for the token, so that it stands in no command line and no history.',
  then: 'It shows up here by itself within a few seconds. gpustack doctor tells what is wrong if not.',
  token: 'On the server, read the token by which machines join:',
  'token-set': 'It is the one that is set by: {origin}.',
};
