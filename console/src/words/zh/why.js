export default {
  again: '重新检查',
  alike: '（另有 {n} 个相同）',
  do: '执行',
  done: '已执行，正在重新检查。',
  final: '继续等待没有用。',
  helps: '如何解决',
  now: '现在有位置了，稍后即会安排。',
  others: '另有 {n} 个在等待。',
  sure: '这会立即更改 {names}。',
  workers: '各节点情况',
};
