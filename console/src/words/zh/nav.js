export default {
  home: '首页',
  cluster: '集群',
  models: '模型',
  files: '文件',
  playground: '试用',
  usage: '用量',
  access: '访问',
  events: '事件',
  settings: '设置',
};
