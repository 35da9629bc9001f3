export default {
  all: 'All',
  changed: 'Set by you',
  default: 'default',
  'no-match': 'No such setting',
  'of-common': 'Of every daemon',
  'of-server': 'Of the server',
  'of-worker': 'Of the worker in this daemon',
  search: 'Search names, values and explanations',
  secret: 'secret',
  show: 'Which settings',
  summary: '{n} of {of} are set; the others have their defaults. A setting is changed where it is written, and takes effect at the next start.',
  unset: 'not set',
};
