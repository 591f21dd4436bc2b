// Statistics against their definitions, written out.

#include "ballast/kernels/statistics.h"

#include <cmath>
#include <numbers>
#include <vector>

#include "ballast/base/parallel.h"
#include "ballast/base/rng.h"
#include "catch.h"

using namespace ballast;

namespace {

std::vector<real> normals(std::int64_t count, double mean, double deviation) {
    const RandomStream stream(7, "statistics");
    std::vector<real> values;
    for (std::int64_t i = 0; i < count; ++i)
        values.push_back(static_cast<real>(mean + deviation * stream.normal(static_cast<std::uint64_t>(i))));
    return values;
}

} // namespace

TEST_CASE("moments are those of their definitions, at every size and thread count", "[statistics]") {
    const std::int64_t count = GENERATE(1, 2, 7, 64, 1001, 100000);
    const std::vector<real> x = normals(count, 3, 0.5);
    double sum = 0, squares = 0, second = 0, fourth = 0;
    for (const real v : x) {
        sum += static_cast<double>(v);
        squares += static_cast<double>(v) * static_cast<double>(v);
    }
    const double mean = sum / static_cast<double>(count);
    for (const real v : x) {
        const double distance = static_cast<double>(v) - mean;
        second += distance * distance;
        fourth += std::pow(distance, 4);
    }
    const Moments found = moments(x.data(), count);
    CHECK(found.mean == Approx(mean));
    CHECK(found.rms == Approx(std::sqrt(squares / static_cast<double>(count))));
    if (count > 1) CHECK(found.kurtosis == Approx(static_cast<double>(count) * fourth / (second * second)));
    if (count > 10000) CHECK(found.kurtosis == Approx(3).epsilon(0.05)); // of a normal distribution

    set_threads(3);
    const Moments threaded = moments(x.data(), count);
    set_threads(available_processors());
    CHECK(threaded.mean == found.mean);
    CHECK(threaded.rms == found.rms);
    CHECK(threaded.kurtosis == found.kurtosis);
}

TEST_CASE("a NaN is seen in every moment, and a constant has no kurtosis", "[statistics]") {
    std::vector<real> x = normals(1000, 0, 1);
    x[371] = std::nan("");
    const Moments found = moments(x.data(), 1000);
    CHECK(std::isnan(found.mean));
    CHECK(std::isnan(found.rms));
    CHECK(std::isnan(found.kurtosis));
    const std::vector<real> constant(50, real{2});
    CHECK(moments(constant.data(), 50).kurtosis == 0);
    CHECK(moments(constant.data(), 50).rms == Approx(2));
}

TEST_CASE("dead columns are counted within the columns asked for", "[statistics]") {
    constexpr std::int64_t kRows = 5, kStride = 1300, kColumns = 1200;
    std::vector<real> x(kRows * kStride, real{-1});
    CHECK(columns_never_positive(x.data(), kRows, kColumns, kStride) == kColumns);
    x[3 * kStride + 0] = 2;
    x[0 * kStride + 600] = 1;
    x[4 * kStride + 1199] = static_cast<real>(1e-6);
    x[2 * kStride + 1250] = 1;    // beyond the columns
    x[1 * kStride + 5] = real{0}; // not above 0
    CHECK(columns_never_positive(x.data(), kRows, kColumns, kStride) == kColumns - 3);
}

TEST_CASE("angles of known rows", "[statistics]") {
    const std::vector<real> a{1, 0, 1, 0, 1, 0, 1, 1};
    const std::vector<real> b{2, 0, 0, 3, -1, 0, 1, 0};
    CHECK(mean_angle(a.data(), b.data(), 4, 2) == Approx((0 + 0.5 + 1 + 0.25) / 4));
}

TEST_CASE("attention's largest logit and entropy are those of the probabilities", "[statistics]") {
    const AttentionShape shape{.batch = 3,
                               .time = GENERATE(as<std::int64_t>(), 1, 5, 70),
                               .heads = 4,
                               .kv_heads = GENERATE(as<std::int64_t>(), 4, 2),
                               .head_width = 8,
                               .alibi = GENERATE(false, true)};
    const std::int64_t sequences = 2;
    const std::vector<real> qkv = normals(shape.batch * shape.time * shape.packed_width(), 0, 2);
    std::vector<double> max_logits(4), entropies(4);
    attention_statistics(max_logits.data(), entropies.data(), qkv.data(), shape, sequences);
    for (std::int64_t head = 0; head < shape.heads; ++head) {
        double largest = -1e30, entropy = 0;
        for (std::int64_t row = 0; row < sequences * shape.time; ++row) {
            const std::int64_t query = row % shape.time, first = row - query;
            std::vector<double> logits;
            for (std::int64_t key = 0; key <= query; ++key) {
                double dot = 0;
                for (std::int64_t i = 0; i < shape.head_width; ++i)
                    dot += static_cast<double>(qkv[row * shape.packed_width() + head * shape.head_width + i]) *
                           static_cast<double>(
                               qkv[(first + key) * shape.packed_width() +
                                   (shape.heads + head * shape.kv_heads / shape.heads) * shape.head_width + i]);
                const double slope = shape.alibi ? alibi_slope(head, shape.heads) : 0;
                logits.push_back(dot / std::sqrt(8.0) - slope * static_cast<double>(query - key));
                largest = std::max(largest, logits.back());
            }
            double z = 0;
            for (const double logit : logits)
                z += std::exp(logit);
            for (const double logit : logits)
                entropy -= std::exp(logit) / z * (logit - std::log(z));
        }
        CHECK(max_logits[head] == Approx(largest).epsilon(1e-5));
        CHECK(entropies[head] == Approx(entropy / static_cast<double>(sequences * shape.time)).margin(1e-5));
    }
}
