from full_size.curve import Budget, different_answers


def test_answers_are_compared_piece_by_piece_with_those_of_the_first_budget() -> None:
    same = [[["a", "b"], ["a", "b"], ["c"]]]
    other_pieces = [[["ab"], ["a", "b"], ["c"]], [["a", "b"], ["a", "b"], ["d"]]]
    assert different_answers([Budget(4, answers=same), Budget(8, answers=same)]) == 0
    assert different_answers([Budget(4, answers=same), Budget(8, answers=other_pieces)]) == 2
