export default {
  call: 'Call it',
  key: 'Key',
  language: 'Language',
  made: 'A key was made.',
  make: 'Make a key for this model',
  need: 'The code reads a key from {variable}. One that is made here may call this model and nothing else; it is listed under Access.',
  once: 'This key is shown once, now. Keep it where programs find it.',
  set: 'So that it is not in the history of a shell, give it when asked:',
  title: 'Call {name}',
};
