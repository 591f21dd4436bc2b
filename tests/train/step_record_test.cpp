#include "ballast/train/step_record.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "ballast/base/error.h"
#include "catch.h"

using namespace ballast;

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

bool same(double a, double b) {
    return (std::isnan(a) && std::isnan(b)) || std::bit_cast<std::uint64_t>(a) == std::bit_cast<std::uint64_t>(b);
}
bool same(std::int64_t a, std::int64_t b) { return a == b; }
bool same(const std::string& a, const std::string& b) { return a == b; }
template <class Value>
bool same(const std::optional<Value>& a, const std::optional<Value>& b) {
    return a.has_value() == b.has_value() && (!a || same(*a, *b));
}

bool same(const StepRecord& a, const StepRecord& b) {
    return std::all_of(kStepFields.begin(), kStepFields.end(), [&](const StepField& field) {
        return std::visit([&](auto member) { return same(a.*member, b.*member); }, field.member);
    });
}

/// Any bits at all, so that subnormal, huge, negative zero and non-finite numbers occur.
struct RandomValue {
    std::mt19937_64& random;

    void set(std::int64_t& value) const { value = static_cast<std::int64_t>(random() >> 1U) | 1; }
    void set(double& value) const {
        constexpr double special[] = {0.0, -0.0, 1.0, kNaN, kInfinity, -kInfinity, 5e-324, 1e22, 0.1};
        const std::uint64_t bits = random();
        value = bits % 4 == 0 ? special[(bits >> 8U) % std::size(special)] : std::bit_cast<double>(random());
    }
    void set(std::string& value) const { value = random() % 2 == 0 ? "stall" : "loss_spike skipped"; }
    template <class Value>
    void set(std::optional<Value>& value) const {
        value.reset();
        if (random() % 2 == 0) set(value.emplace());
    }
};

StepRecord random_record(std::mt19937_64& random) {
    StepRecord record;
    for (const StepField& field : kStepFields)
        std::visit([&](auto member) { RandomValue{random}.set(record.*member); }, field.member);
    return record;
}

std::string problem_of(const std::string& line) {
    try {
        step_record_from_json(line);
    } catch (const IoError& error) {
        return error.what();
    }
    return "";
}

std::vector<std::string> split(const std::string& line) {
    std::vector<std::string> cells(1);
    for (const char c : line) {
        if (c == ',')
            cells.emplace_back();
        else
            cells.back() += c;
    }
    return cells;
}

} // namespace

TEST_CASE("a step record comes back from JSON bit for bit") {
    std::mt19937_64 random(1);
    for (int i = 0; i < 3000; ++i) {
        const StepRecord record = random_record(random);
        const std::string line = to_json(record);
        CAPTURE(line);
        CHECK(line.find('\n') == std::string::npos);
        CHECK(nlohmann::json::accept(line));
        CHECK(same(step_record_from_json(line), record));
    }
}

TEST_CASE("the table names every member of a step record once") {
    std::set<std::string_view> names;
    std::size_t bytes = 0;
    for (const StepField& field : kStepFields) {
        CHECK(names.insert(field.name).second);
        CHECK(field.meaning.ends_with('.'));
        bytes += std::visit([](auto member) { return sizeof(StepRecord{}.*member); }, field.member);
    }
    CHECK(bytes == sizeof(StepRecord)); // a member that the table lacks would make it larger

    // Each entry reads and writes a member of its own.
    StepRecord record;
    double number = 1;
    for (const StepField& field : kStepFields) {
        std::visit(
            [&](auto member) {
                if constexpr (std::is_same_v<decltype(member), std::optional<std::string> StepRecord::*>)
                    record.*member = std::to_string(static_cast<int>(number));
                else
                    record.*member = static_cast<std::int64_t>(number);
            },
            field.member);
        number += 1;
    }
    number = 1;
    const auto json = nlohmann::ordered_json::parse(to_json(record));
    for (const auto& [key, value] : json.items()) {
        CHECK(key == kStepFields[static_cast<std::size_t>(number) - 1].name);
        if (value.is_string())
            CHECK(value == std::to_string(static_cast<int>(number)));
        else
            CHECK(value == number);
        number += 1;
    }
}

TEST_CASE("numbers that are not finite are words in JSON and CSV") {
    StepRecord record;
    record.step = 7;
    record.loss = kNaN;
    record.max_logit = kInfinity;
    record.gradient_norm = -kInfinity;
    const auto json = nlohmann::json::parse(to_json(record));
    CHECK(json["loss"] == "NaN");
    CHECK(json["max_logit"] == "Infinity");
    CHECK(json["gradient_norm"] == "-Infinity");
    CHECK_FALSE(json.contains("val_loss"));
    const std::string row = to_csv(record);
    CHECK(row.starts_with("7,0,NaN,"));
    CHECK(row.find(",Infinity,") != std::string::npos);
    CHECK(row.find(",-Infinity,") != std::string::npos);
    CHECK(row.back() == ',');
}

TEST_CASE("a CSV row has a cell for each column, and its numbers read back to the same bits") {
    const std::vector<std::string> names = split(step_csv_header());
    REQUIRE(names.size() == kStepFields.size());
    std::mt19937_64 random(2);
    for (int i = 0; i < 300; ++i) {
        const StepRecord record = random_record(random);
        const std::vector<std::string> cells = split(to_csv(record));
        REQUIRE(cells.size() == names.size());
        for (std::size_t column = 0; column < names.size(); ++column) {
            CHECK(names[column] == kStepFields[column].name);
            const std::string& cell = cells[column];
            std::visit(
                [&](auto member) {
                    const auto& value = record.*member;
                    if constexpr (std::is_same_v<decltype(member), std::int64_t StepRecord::*>)
                        CHECK(std::stoll(cell) == value);
                    else if constexpr (std::is_same_v<decltype(member), double StepRecord::*>)
                        CHECK(same(std::strtod(cell.c_str(), nullptr), value));
                    else if constexpr (std::is_same_v<decltype(member), std::optional<std::string> StepRecord::*>)
                        CHECK(cell == value.value_or(""));
                    else
                        CHECK((value ? same(std::strtod(cell.c_str(), nullptr), *value) : cell.empty()));
                },
                kStepFields[column].member);
        }
    }
}

TEST_CASE("a line that is not a step record is refused with the reason") {
    CHECK(problem_of("") == "not a JSON object");
    CHECK(problem_of("[1]") == "not a JSON object");
    CHECK(problem_of(R"({"step":1,"loss":2)") == "not a JSON object");
    CHECK(problem_of(std::string("{\"step\":1}\0}", 12)) == "not a JSON object");
    CHECK(problem_of(R"({"step":1,"loss":1e999})") == "not a JSON object");
    CHECK(problem_of(R"({"tokens":1})") == "key 'step': expected the number of a step");
    CHECK(problem_of(R"({"step":1.5})") == "key 'step': expected an integer");
    CHECK(problem_of(R"({"step":9223372036854775808})") == "key 'step': expected an integer");
    CHECK(problem_of(R"({"step":0,"tokens":0})") == "key 'step': expected the number of a step");
    CHECK(problem_of(R"({"step":-1,"tokens":0})") == "key 'step': expected the number of a step");
    CHECK(problem_of(R"({"step":1,"tokens":0,"loss":"nan"})") == "key 'loss': expected a number");
    CHECK(problem_of(R"({"step":1,"tokens":0,"loss":null})") == "key 'loss': expected a number");
    CHECK(problem_of(R"({"step":1,"tokens":0,"val_loss":[]})") == "key 'val_loss': expected a number");
    CHECK(problem_of(std::string(100000, '[')) == "not a JSON object");
}

TEST_CASE("a record of another version is read as far as it goes") {
    const StepRecord record = step_record_from_json(R"({"step":3,"tokens":5,"new":{"a":1},"loss":2})");
    CHECK(record.step == 3);
    CHECK(record.loss == 2);
    CHECK(std::isnan(record.z_loss));
    CHECK_FALSE(record.val_loss.has_value());
}
