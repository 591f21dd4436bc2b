#pragma once

#include <cstdint>

#include "ballast/config/config.h"
#include "ballast/nn/params.h"

namespace ballast::inline BALLAST_PRECISION {

/// What `model.init` says about each kind of tensor.
///
/// | kind   | matrix [out, in]                        | last matrix of a branch | embeddings            |
/// |--------|-----------------------------------------|-------------------------|-----------------------|
/// | gpt2   | N(0, std)                               | N(0, std / sqrt(2 layers)) | N(0, std)          |
/// | xavier | U(+-sqrt(6 / (in + out)))               | the same                | N(0, 1 / sqrt(width)) |
/// | fan_in | N(0, 1 / sqrt(in))                      | the same                | N(0, 1 / sqrt(width)) |
///
/// Sources: Radford et al. 2019 (GPT-2, section 2.3) as in nanoGPT; Glorot & Bengio 2010, equation 16; fan_in as in
/// Wortsman et al., 2309.14322, section 2.2. The stacked query, key and value matrices, and gate and up, are drawn as
/// the separate matrices they are: `out` is the height of one of them.
class InitRules {
public:
    InitRules(const InitConfig& config, std::int64_t layers) : config_(config), layers_(layers) {}

    ParamInit matrix(std::int64_t in, std::int64_t out) const;
    ParamInit branch_output(std::int64_t in, std::int64_t out) const;
    ParamInit embedding(std::int64_t width) const;

private:
    InitConfig config_;
    std::int64_t layers_;
};

} // namespace ballast::inline BALLAST_PRECISION
