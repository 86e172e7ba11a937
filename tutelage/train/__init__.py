"""Training a student on a selection of exchanges."""
