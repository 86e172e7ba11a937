"""Run files that come with the package, one folder each, with a README of expected numbers."""
