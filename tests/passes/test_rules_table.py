"""The rules R1 to R22 of language.md and the tests that hold each: where it claims to be equal, and where it must not
fire. A starred rule claims every commutative semiring, so its first test runs over at least six of them.
"""

from __future__ import annotations

from types import ModuleType

import pytest

from stein.ir.semiring import Semiring
from stein.tests.passes import test_rules as normal
from stein.tests.passes import test_rules_constants as constants
from stein.tests.passes import test_rules_functions as functions
from stein.tests.passes import test_rules_plan as chosen
from stein.tests.passes import test_rules_ring as ring

MODULES: tuple[ModuleType, ...] = (normal, constants, functions, chosen, ring)
STARRED = {*range(1, 15), 16, 20}
IDEMPOTENT_ONLY = {22}

# rule: the property tests (the first over semirings, where it claims them), the counter-tests
RULES: dict[int, tuple[tuple[str, ...], tuple[str, ...]]] = {
    1: (("r1_renaming_keeps_value_and_key",), ("r1_merging_two_names_is_another_product",)),
    2: (("r2_factors_commute",), ("r2_key_tells_other_products_apart",)),
    3: (("r3_another_output_order_is_the_transpose",), ("r3_another_output_order_is_the_transpose",)),
    4: (("r4_any_subset_nests_and_r5_undoes_it",), ("r4_keeps_an_index_that_is_used_outside",)),
    5: (("r4_any_subset_nests_and_r5_undoes_it",), ("r5_does_not_mix_semirings_or_types",)),
    6: (
        ("r6_identity_matrix_disappears", "r6_pads_where_the_index_may_leave_its_range"),
        ("r6_leaves_what_it_cannot_prove", "r6_pads_only_where_zero_annihilates"),
    ),
    7: (("r7_repeats_become_deltas_and_r6_takes_them_back",), ("r7_leaves_a_product_without_repeats",)),
    8: (
        (
            "r8_a_symbol_of_ones_alone_is_the_n_fold_sum_of_one",
            "r8_ones_go",
            "r8_counts_in_the_ring_of_the_type",
        ),
        ("r8_other_constants_stay", "r8_a_symbol_of_ones_alone_is_the_n_fold_sum_of_one"),
    ),
    9: (
        ("r9_a_zero_makes_the_product_zero",),
        ("r9_not_in_floating_point", "r9_an_observed_zero_is_no_structure", "r9_other_constants_are_no_zeros"),
    ),
    10: (("r10_scalars_leave_the_sum",), ("r10_factors_of_the_sum_stay_in_it",)),
    11: (
        ("r11_sums_distribute", "r11_backwards_takes_a_common_factor_out"),
        ("r11_only_the_addition_of_the_semiring_distributes", "r11_and_r21_differences_only_in_a_ring"),
    ),
    12: (("r12_sums_of_one_operand_first",), ("r12_sums_of_one_operand_first",)),
    13: (("r13_equal_index_sets_merge",), ("r13_equal_index_sets_merge",)),
    14: (("r14_components_separate",), ("r14_components_separate",)),
    15: (("r15_length_one_goes",), ("r15_length_one_goes",)),
    16: (("r16_indices_that_go_together_merge",), ("r16_leaves_other_pairs",)),
    17: (
        ("r17_claimed_symmetries_hold", "r17_gram_matrices_are_symmetric", "r17_symmetry_of_three_axes"),
        ("r17_a_form_between_two_vectors_is_not_symmetric", "r17_is_not_claimed_of"),
    ),
    18: (
        (
            "r18_adjoint_is_the_transposed_linear_map",
            "r18_adds_the_places_of_an_operand",
            "r18_through_affine_accesses",
            "r18_of_a_sum_that_adds_to_its_operand",
            "r18_a_real_operand_of_a_complex_product_has_a_real_gradient",
        ),
        ("r18_no_gradient_without_a_ring", "r18_refuses_what_has_no_gradient"),
    ),
    19: (
        (
            "r19_through_permutations_diagonals_and_broadcasts",
            "r19_through_other_embeddings",
            "r19_the_table_of_functions_tells_which_keep_zero",
        ),
        (
            "r19_through_a_written_diagonal_only_if_zero_stays_zero",
            "r19_not_through_writes_that_meet_or_reads_of_a_part",
            "r19_an_approximation_need_not_keep_zero",
            "r19_never_through_a_sum",
        ),
    ),
    20: (
        ("r20_an_affine_access_is_a_structure_tensor", "r20_a_circulant_access_opens_and_stays_open"),
        ("r20_only_affine_accesses_open",),
    ),
    21: (
        ("r21_who_may_subtract_and_divide", "r21_is_asked_wherever_a_pass_subtracts"),
        (
            "r21_differences_do_not_distribute",
            "r21_differences_are_not_factored",
            "r21_no_fourier_transform_outside_of_a_field",
            "r21_the_language_refuses_the_operations",
            "r21_a_quotient_leaves_a_sum_only_in_a_field",
        ),
    ),
    22: (
        ("r22_equal_summands_count_once",),
        ("r22_duplicates_count_where_sums_are_not_idempotent", "r22_terms_of_other_types_or_extents_stay"),
    ),
}


def found(name: str) -> object:
    tests = [getattr(m, "test_" + name) for m in MODULES if hasattr(m, "test_" + name)]
    assert len(tests) == 1, name
    return tests[0]


def semirings(test: object) -> set[Semiring]:
    """The semirings that a test is parametrised over."""
    values = [v for mark in getattr(test, "pytestmark", ()) if mark.name == "parametrize" for v in mark.args[1]]
    return {s for v in values for s in (v if isinstance(v, tuple) else (v,)) if isinstance(s, Semiring)}


@pytest.mark.parametrize("rule", range(1, 23))
def test_every_rule_has_its_tests(rule: int) -> None:
    properties, counters = RULES[rule]
    assert properties and counters
    assert all(callable(found(name)) for name in (*properties, *counters))
    over = semirings(found(properties[0]))
    assert len(over) >= 6 or rule not in STARRED | IDEMPOTENT_ONLY
    assert all(s.idempotent for s in over) or rule not in IDEMPOTENT_ONLY


def test_every_test_of_a_rule_is_in_the_table() -> None:
    listed = {"test_" + name for groups in RULES.values() for group in groups for name in group}
    there = {name for m in MODULES for name in vars(m) if name.startswith("test_r")}
    assert there - listed == set()
