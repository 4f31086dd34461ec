"""The language server: editor requests in, suggestions and findings out."""
