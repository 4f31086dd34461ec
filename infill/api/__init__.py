"""The service's HTTP APIs: Gesso's own, OpenAI's and llama.cpp's."""
