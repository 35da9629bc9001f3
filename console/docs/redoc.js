// Shows the API with ReDoc. Search is off: it would want a worker made from a blob.
window.Redoc.init(
  'openapi.json',
  {
    disableSearch: true,
    nativeScrollbars: true,
    theme: { typography: { fontFamily: 'system-ui, sans-serif', headings: { fontFamily: 'system-ui, sans-serif' } } },
  },
  document.getElementById('api'),
);
