// Equalities between norms that hold exactly in mathematics, and to rounding in float; in double, with more of them:
// tests/gradcheck/norm_equivalence_test.cpp.

#include "catch.h"
#include "norm_models.h"

TEST_CASE("Pre-LN is Pre-RMSNorm once the stream has no mean", "[norm]") {
    const double centred = norm_models::pre_layernorm_and_pre_rmsnorm(true);
    CAPTURE(centred);
    CHECK(centred < 1e-4); // logits are of size 1
    CHECK(norm_models::pre_layernorm_and_pre_rmsnorm(false) > 1e-2);
}
