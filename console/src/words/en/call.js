export default {
  address: 'Any client that speaks OpenAI can use it: the address is {address}.',
  key: 'Key',
  language: 'Language',
  made: 'A key was made.',
  make: 'Make a key for it',
  'needs-key': 'A call needs a key. One that is made here may use this model and nothing else.',
  once: 'It is shown this once. Keep it where your programs find it.',
  others: 'Other keys',
  set: 'The code reads the key from {variable}. To give it without leaving it in the history of a shell:',
  title: 'Call it',
  'title-of': 'Call {name}',
};
