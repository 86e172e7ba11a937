"""Which prompts there are, and asking the teacher."""
