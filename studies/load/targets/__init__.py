"""Whom a load is put on: a deployment of this project (`deployment`), any server that speaks the OpenAI chat API
(`openai_server`), or transformers' own `generate` in a process of its own (`transformers_peer`).
"""
