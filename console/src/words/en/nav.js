export default {
  home: 'Home',
  cluster: 'Cluster',
  models: 'Models',
  files: 'Files',
  playground: 'Playground',
  usage: 'Usage',
  access: 'Access',
  events: 'Events',
  settings: 'Settings',
};
