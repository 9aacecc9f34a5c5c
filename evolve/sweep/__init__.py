"""Variants of a recipe or a search side by side, with honest intervals."""
