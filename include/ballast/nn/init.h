#pragma once

#include <cstdint>

#include "ballast/config/config.h"
#include "ballast/nn/params.h"

namespace ballast::inline BALLAST_PRECISION {

/// What `model.init`, and `model.residual` fixup, say about each kind of tensor of one block.
///
/// | kind         | matrix [out, in]                 | last matrix of a branch    | embeddings            |
/// |--------------|----------------------------------|----------------------------|-----------------------|
/// | gpt2         | N(0, std)                        | N(0, std / sqrt(2 layers)) | N(0, std)             |
/// | xavier       | U(+-sqrt(6 / (in + out)))        | the same                   | N(0, 1 / sqrt(width)) |
/// | fan_in       | N(0, 1 / sqrt(in))               | the same                   | N(0, 1 / sqrt(width)) |
/// | small        | N(0, sqrt(2 / (5 width)))        | the same                   | N(0, 1 / sqrt(width)) |
/// | deepnorm     | N(0, sqrt(2 / (in + out)))       | that times beta            | N(0, 1 / sqrt(width)) |
/// | depth_scaled | U(+-sqrt(6 / (in + out) / l))    | the same                   | N(0, 1 / sqrt(width)) |
///
/// l counts blocks from 1; beta = (8 layers)^(-1/4), which also multiplies the values' matrix and the first of the ffn.
/// Fixup: the last matrix of a branch is 0, and those that stand before it on the branch's path (values, first of the
/// ffn) are multiplied by (2 layers)^(-1/(2m - 2)), m being the factors of the branch: 2, or 3 for a gated ffn.
///
/// Sources: Radford et al. 2019 (GPT-2, section 2.3) as in nanoGPT; Glorot & Bengio 2010, equation 16; fan_in as in
/// Wortsman et al., 2309.14322, section 2.2; Nguyen & Salazar, 1910.05895, section 2.2; DeepNet, 2203.00555, figure 2;
/// Zhang et al., 1908.11365, section 4; Fixup, 1901.09321, section 2. The stacked query, key and value matrices, and
/// gate and up, are drawn as the separate matrices they are: `out` is the height of one of them.
class InitRules {
public:
    /// For block `block`, from 0; for what stands outside of the blocks, as for the first.
    explicit InitRules(const ModelConfig& model, std::int64_t block = 0);

    ParamInit matrix(std::int64_t in, std::int64_t out) const;
    /// Queries and keys, and from element `values` on the values; each of the three is [width, width] to the init.
    ParamInit qkv(std::int64_t values) const;
    ParamInit ffn_input(std::int64_t hidden, bool gated) const;
    ParamInit branch_output(std::int64_t in, std::int64_t out) const;
    ParamInit embedding() const;

private:
    double branch_scale(int factors) const;

    InitConfig config_;
    ResidualKind residual_;
    double layers_;
    double depth_; ///< l
    std::int64_t width_;
};

} // namespace ballast::inline BALLAST_PRECISION
