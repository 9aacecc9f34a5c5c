"""Vocabularies and tokenizers, and how several become one."""
