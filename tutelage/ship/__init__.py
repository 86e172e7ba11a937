"""Writing the files people use."""
