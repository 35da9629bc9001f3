// Shows the API with Swagger UI. A file of its own, so that the page needs no inline script.
window.SwaggerUIBundle({
  url: 'openapi.json',
  dom_id: '#api',
  deepLinking: true,
  displayRequestDuration: true,
  validatorUrl: null, // the default sends the description to a public service
});
