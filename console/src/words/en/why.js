export default {
  again: 'Look again',
  alike: ({ n }) => (n === 1 ? '(and 1 like it)' : `(and ${n} like it)`),
  do: 'Do it',
  done: 'Done. It is looked at again.',
  final: 'Waiting does not help.',
  helps: 'What would help',
  now: 'There is a place for it now; it is placed in a moment.',
  others: ({ n }) => (n === 1 ? 'One more waits.' : `${n} more wait.`),
  sure: 'This changes {names} at once.',
  workers: 'Worker by worker',
};
