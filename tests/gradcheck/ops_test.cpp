// Every op that there is, in every way that it says it can be called. A new op is covered by being registered.

#include <set>

#include "ballast/ops/registry.h"
#include "catch.h"
#include "checker.h"

using namespace gradcheck;

TEST_CASE("gradients of every registered op", "[gradcheck]") {
    for (const OpDef* op : ops::registry()) {
        const std::vector<OpSample> samples = op->samples();
        INFO("op " << op->name);
        CHECK(!samples.empty());

        std::vector<bool> moves(kMaxInputs, false);
        std::vector<bool> wanted(kMaxInputs, false);
        std::set<std::string> labels;
        for (const OpSample& sample : samples) {
            INFO("sample " << sample.label);
            CHECK(labels.insert(sample.label).second);
            const Report report = check_op(*op, sample, ops::registry());
            INFO(report.text());
            CHECK(report.failures.empty());
            for (std::size_t i = 0; i < sample.inputs.size(); ++i) {
                wanted[i] = wanted[i] || !op_calls::is_constant(sample, i);
                moves[i] = moves[i] || report.moves[i];
            }
        }
        // Zeros that are right prove nothing: somewhere, each input must matter.
        CHECK(moves == wanted);
    }
}

TEST_CASE("every op states its work and what it saves", "[gradcheck]") {
    for (const OpDef* op : ops::registry())
        for (const OpSample& sample : op->samples()) {
            INFO(op->name << ", " << sample.label);
            const Flops flops = op->flops(sample.inputs, sample.attributes);
            CHECK(flops.forward > 0);
            CHECK(flops.backward > 0);
            CHECK(op->saved_size(sample.inputs, sample.attributes) >= 0);
        }
}
