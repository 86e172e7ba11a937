"""What an error shows on a terminal."""

from tutelage.errors import DataError


def test_what_others_wrote_moves_no_cursor() -> None:
    error = DataError("row 3: \x1b[31mred\x07\u202e", fix="mend it\nthen run again")
    assert str(error) == "row 3: \\x1b[31mred\\x07\\u202e\n  fix: mend it\nthen run again"
