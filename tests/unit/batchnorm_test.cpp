// The batchnorm op: which statistics it uses when, and what follows from using those of the rows.

#include <algorithm>
#include <cmath>
#include <vector>

#include "ballast/base/error.h"
#include "ballast/ops/ops.h"
#include "ballast/ops/registry.h"
#include "catch.h"
#include "op_calls.h"

using namespace ballast;

namespace {

constexpr std::int64_t kRows = 6, kWidth = 3;
constexpr double kEps = 1e-3;

using op_calls::Values;

Values values(std::size_t count, std::uint64_t seed) { return op_calls::uniform_values(count, seed, 0.5, 2); }

struct Batch {
    Values x = values(kRows * kWidth, 1);
    Values mean = values(kWidth, 2);
    Values variance = values(kWidth, 3);
    Tape tape{ops::registry()};

    Var run(Mode mode, bool frozen) {
        tape.begin(mode);
        return ops::batchnorm(tape, tape.constant({kRows, kWidth}, x.data()), {}, {},
                              tape.constant({kWidth}, mean.data()), tape.constant({kWidth}, variance.data()), kEps,
                              frozen);
    }
    Values output(Mode mode, bool frozen) {
        const real* y = tape.data(run(mode, frozen));
        return {y, y + kRows * kWidth};
    }
};

} // namespace

TEST_CASE("batchnorm uses the rows' statistics in train mode, the running ones in eval mode or frozen") {
    Batch batch;
    const Values train = batch.output(Mode::train, false), eval = batch.output(Mode::eval, false);
    CHECK(batch.output(Mode::train, true) == eval);
    for (std::size_t i = 0; i < kWidth; ++i) {
        double mean = 0, squares = 0;
        for (std::size_t k = i; k < batch.x.size(); k += kWidth)
            mean += static_cast<double>(batch.x[k]) / kRows;
        for (std::size_t k = i; k < batch.x.size(); k += kWidth)
            squares += std::pow(static_cast<double>(batch.x[k]) - mean, 2) / kRows;
        for (std::size_t k = i; k < batch.x.size(); k += kWidth) {
            const auto x = static_cast<double>(batch.x[k]);
            CHECK(train[k] == Approx((x - mean) / std::sqrt(squares + kEps)).margin(1e-6));
            const auto running_mean = static_cast<double>(batch.mean[i]);
            const auto running_variance = static_cast<double>(batch.variance[i]);
            CHECK(eval[k] == Approx((x - running_mean) / std::sqrt(running_variance + kEps)).margin(1e-6));
        }
        const ops::BatchStatistics seen = ops::batch_statistics(batch.tape, batch.run(Mode::train, false));
        CHECK(seen.rows == kRows);
        CHECK(seen.width == kWidth);
        CHECK(seen.mean[i] == Approx(mean));
        CHECK(seen.variance[i] == Approx(squares));
        const ops::BatchStatistics frozen = ops::batch_statistics(batch.tape, batch.run(Mode::train, true));
        CHECK(frozen.mean[i] == batch.mean[i]);
        CHECK(frozen.variance[i] == batch.variance[i]);
    }
}

TEST_CASE("batch statistics are those of a batchnorm alone") {
    Batch batch;
    const Var y = batch.run(Mode::train, false);
    CHECK_THROWS_AS(ops::batch_statistics(batch.tape, ops::affine(batch.tape, y, 1, 0)), Error);
    CHECK_THROWS_AS(ops::batch_statistics(batch.tape, batch.tape.constant({kWidth}, batch.mean.data())), Error);
}

TEST_CASE("batchnorm lets a row see the later ones in train mode; in eval mode, and layernorm, do not") {
    Batch batch;
    const auto first_row = [&](auto&& norm) {
        const Values y = norm();
        return Values(y.begin(), y.begin() + kWidth);
    };
    const auto layernorm = [&] {
        batch.tape.begin(Mode::train);
        const Var y = ops::layernorm(batch.tape, batch.tape.constant({kRows, kWidth}, batch.x.data()), {}, {}, kEps);
        return Values(batch.tape.data(y), batch.tape.data(y) + kRows * kWidth);
    };
    const auto train = [&] { return batch.output(Mode::train, false); };
    const auto eval = [&] { return batch.output(Mode::eval, false); };
    const Values before_train = first_row(train), before_eval = first_row(eval),
                 before_layernorm = first_row(layernorm);
    batch.x.back() += 1; // the future of every other row
    CHECK(first_row(train) != before_train);
    CHECK(first_row(eval) == before_eval);
    CHECK(first_row(layernorm) == before_layernorm);
}
