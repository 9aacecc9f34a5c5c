"""What can be seen of models before anything is searched: ancestry, distances, tokenizers, pairs that go together."""
