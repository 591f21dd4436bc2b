#include "ballast/ops/registry.h"

#include <array>

#include "ballast/ops/ops.h"

namespace ballast::inline BALLAST_PRECISION::ops {

std::span<const OpDef* const> registry() {
    static constexpr std::array list{
        &embedding_op,
        &linear_op,
        &layernorm_op,
        &rmsnorm_op,
        &scalenorm_op,
        &dyt_op,
        &derf_op,
        &batchnorm_op,
        &attention_op,
        &rope_op,
        &head_scale_op,
        &activation_op,
        &glu_op,
        &softcap_op,
        &residual_op,
        &residual_scaled_op,
        &dropout_op,
        &cross_entropy_op,
        &reshape_op,
        &slice_op,
        &concat_columns_op,
        &binary_op,
        &unary_op,
        &affine_op,
        &row_sum_op,
        &broadcast_op,
        &matmul_op,
        &place_op,
    };
    return list;
}

} // namespace ballast::inline BALLAST_PRECISION::ops
