"""The gateway: OpenAI's chat completions over HTTP, answered by decoders through the SDK. Needs no torch."""
