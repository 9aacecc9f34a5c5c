"""Search spaces: a recipe with genes in it, unit vectors, standard recipes."""
