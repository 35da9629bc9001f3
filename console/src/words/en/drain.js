export default {
  begin: 'Drain',
  begun: '{name} is being drained.',
  empty: 'Nothing runs there; it only takes nothing new.',
  ends: 'ends for it: {names}',
  ends_first: 'ends, then starts elsewhere',
  not_replaced: 'ends: there are more replicas than are wanted',
  replaced_first: 'another is made ready elsewhere, then it ends',
  stays: ({ n }) => (n === undefined ? 'stays' : n === 1 ? 'One instance has no other place and stays until there is one.' : `${n} instances have no other place and stay until there is one.`),
  title: 'Drain {name}',
  to: 'goes to {place}',
  what: 'It takes nothing new. What runs there is started elsewhere, one replica at a time, and then ends. This is what would come of it now:',
};
