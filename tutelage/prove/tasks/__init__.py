"""What an open answer is worth: scoring tasks by name (`catalogue`), all pure but `code`."""
