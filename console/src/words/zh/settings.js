export default {
  all: '全部',
  changed: '已设置的',
  default: '默认',
  'no-match': '没有符合条件的设置',
  'of-common': '通用',
  'of-server': '服务器',
  'of-worker': '本进程中的工作节点',
  search: '搜索名称、值和说明',
  secret: '机密',
  show: '显示哪些设置',
  summary: '{of} 项中已设置 {n} 项，其余为默认值。请在设置所写之处修改，下次启动时生效。',
  unset: '未设置',
};
