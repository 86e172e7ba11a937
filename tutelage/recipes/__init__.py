"""Run files that come with the package; `recipes/` at the top of the repository describes them."""
