"""The recipe language: what a recipe says, and what that means for a tensor."""
