"""All that can be known before a model is loaded."""
