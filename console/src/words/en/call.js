export default {
  address: 'Any client that speaks OpenAI can use it: the address is {address}.',
  key: 'Key',
  language: 'Language',
  make: 'Make a key for it',
  'needs-key': 'A call needs a key. One that is made here may use this model and nothing else.',
  once: 'It is shown this once, and stands in the snippets below. Copy it now.',
  others: 'Other keys',
  title: 'Call it',
};
