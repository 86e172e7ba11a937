"""Everything that makes or scores tokens: teachers, students, judges and suspects."""
