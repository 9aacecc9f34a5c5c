"""The pictures of a run: each a function from its record to a plotly figure, registered under a name."""
