export default {
  begin: '排空',
  begun: '{name} 正在排空。',
  empty: '该节点没有运行实例，仅停止接受新实例。',
  ends: '因此结束：{names}',
  ends_first: '先结束，再在其他节点启动',
  not_replaced: '结束：副本数多于所需',
  replaced_first: '先在其他节点就绪，然后结束',
  stays: ({ n }) => (n === undefined ? '保留' : `${n} 个实例没有其他位置，将保留到有位置为止。`),
  title: '排空 {name}',
  to: '迁移到 {place}',
  what: '该节点不再接受新实例，其上运行的副本会逐个在其他节点启动，然后在此结束。目前的计划如下：',
};
