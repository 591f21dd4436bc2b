#pragma once

// What a model has to pass: its gradients are those of finite differences, and it is its equations.

#include "equations.h"

namespace certify {

using namespace equations;

/// A report that also remembers the worst error of the values that were compared, relative to 1 + |value|.
struct ModelReport : Report {
    double worst = 0;

    void note(double expected, double actual) {
        const double error = std::abs(expected - actual) / (1 + std::abs(expected));
        if (!(error <= worst)) worst = error;
    }
};

inline constexpr std::uint64_t kDirections = 3;
inline constexpr std::uint64_t kElements = 2;

/// Every parameter along random directions that move all of its elements, and at single elements.
inline ModelReport check_model(TinyModel& model) {
    ModelReport report;
    model.differentiate();
    const ParamTable& table = model.table();
    for (std::size_t p = 0; p < table.params().size(); ++p) {
        const Param& param = table.params()[p];
        const std::size_t count = size_of(param.shape);
        const real* gradient = table.gradients() + param.offset;
        real* values = table.values() + param.offset;
        const Values before(values, values + count);

        const auto check_along = [&](const std::string& what, std::size_t number, auto&& direction) {
            double analytic = 0;
            for (std::size_t k = 0; k < count; ++k)
                analytic += gradient[k] * direction(k);
            const auto loss_at = [&](double t) {
                for (std::size_t k = 0; k < count; ++k)
                    values[k] = before[k] + t * direction(k);
                return model.loss();
            };
            const double expected = derivative([&](double h) { return loss_at(h) - loss_at(-h); });
            std::copy(before.begin(), before.end(), values);
            report.note(expected, analytic);
            if (!close(expected, analytic)) report.fail(param.name + ", " + what, p, number, analytic, expected);
        };
        for (std::uint64_t d = 0; d < kDirections; ++d) {
            const RandomStream signs(d, param.name);
            check_along("direction", d, [&](std::size_t k) { return signs.block(k)[0] % 2 == 0 ? 1.0 : -1.0; });
        }
        for (std::uint64_t e = 0; e < kElements; ++e) {
            const auto element = static_cast<std::size_t>(RandomStream(9, param.name).below(e, count));
            check_along("element", element, [&](std::size_t k) { return k == element ? 1.0 : 0.0; });
        }
        // Zeros that are right prove nothing: every parameter matters in every model.
        report.moves.push_back(std::any_of(gradient, gradient + count, [](real g) { return g != 0; }));
    }
    return report;
}

inline constexpr double kEqual = 1e-10;

/// Logits, loss and every gradient against the equations written out with primitive ops. `model` is a TinyModel or like
/// one.
template <class Model>
ModelReport check_equations(const ModelConfig& config, Model& model) {
    ModelReport report;
    const Reference reference(config, model.table());
    const auto compare = [&](const std::string& where, std::size_t number, std::size_t element, double actual,
                             double expected) {
        report.note(expected, actual);
        if (!close(expected, actual, kEqual)) report.fail(where, number, element, actual, expected);
    };
    const Values logits = model.logits();
    if (logits.size() != reference.logits().size()) throw Error("the equations have logits of another shape");
    for (std::size_t i = 0; i < logits.size(); ++i)
        compare("logits", 0, i, logits[i], reference.logits()[i]);
    compare("loss", 0, 0, model.loss(), reference.loss());
    model.differentiate();
    for (std::size_t p = 0; p < model.table().params().size(); ++p) {
        const Param& param = model.table().params()[p];
        for (std::size_t i = 0; i < size_of(param.shape); ++i) {
            const std::size_t at = static_cast<std::size_t>(param.offset) + i;
            compare(param.name, p, i, model.table().gradients()[at], reference.gradients()[at]);
        }
    }
    return report;
}

/// Whether two models make different predictions.
inline bool differ(const Values& a, const Values& b, double least = 1e-3) {
    double worst = 0;
    for (std::size_t i = 0; i < a.size(); ++i)
        worst = std::max(worst, std::abs(a[i] - b[i]));
    return worst > least;
}

/// Whether a parameter may have no gradient: for one of the reasons below, and the equations do not change with it.
///
/// Softmax does not see what is added to all keys. A batchnorm does not see what is added to a feature, nor a norm of
/// rows a factor of a row; where such norms alone read the stream, neither does the model.
inline bool is_idle(const ModelConfig& config, TinyModel& model, const Param& param) {
    const bool lost_offset = config.norm.kind == NormKind::batchnorm && param.name.ends_with("_norm.bias");
    const bool lost_factor = config.norm.kind == NormKind::scalenorm && param.name.ends_with("_norm.gain");
    if (!lost_offset && !lost_factor && !param.name.ends_with(".k_norm.bias")) return false;
    const Values before = Reference(config, model.table()).logits();
    real* const values = model.table().values() + param.offset;
    const std::size_t count = size_of(param.shape);
    const Values kept(values, values + count), moved = op_calls::uniform_values(count, 17, 0.5, 1);
    for (std::size_t i = 0; i < count; ++i)
        values[i] += moved[i];
    const bool idle = !differ(before, Reference(config, model.table()).logits(), 1e-9);
    std::copy(kept.begin(), kept.end(), values);
    return idle;
}

} // namespace certify
