#include "ballast/train/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "ballast/base/error.h"
#include "catch.h"
#include "temporary_directory.h"
#include "train/fault_calls.h"

using namespace ballast;
namespace fs = std::filesystem;

namespace {

std::span<const std::byte> bytes_of(const std::string& text) { return std::as_bytes(std::span(text)); }

std::string problem_of(const std::function<void()>& action) {
    try {
        action();
    } catch (const Error& error) {
        return error.what();
    }
    return "";
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

/// A file of this header and `data` bytes of data.
std::string file_of(const std::string& header, std::size_t data) {
    std::string file(8, '\0');
    const std::uint64_t size = header.size();
    std::memcpy(file.data(), &size, 8);
    return file + header + std::string(data, '\0');
}

std::string problem_in(const std::string& header, std::size_t data = 0) {
    return problem_of([&] { SafetensorsView view(bytes_of(file_of(header, data)), "x"); });
}

std::string tensor(const std::string& dtype, const std::string& shape, const std::string& offsets) {
    return R"({"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}";
}

/// Reads every byte that the view hands out.
std::size_t sum_of(const SafetensorsView& view) {
    std::size_t sum = 0;
    for (const TensorEntry& entry : view.tensors())
        for (const std::byte byte : entry.bytes)
            sum += std::to_integer<std::size_t>(byte);
    return sum;
}

} // namespace

TEST_CASE("tensors come back from a safetensors file bit for bit") {
    const TemporaryDirectory directory;
    const fs::path path = directory / "tensors";
    std::mt19937_64 random(1);
    for (int turn = 0; turn < 60; ++turn) {
        std::vector<std::vector<float>> values;
        std::vector<TensorSource> sources;
        const std::size_t count = random() % 7;
        values.reserve(count);
        for (std::size_t i = 0; i < count; ++i) {
            TensorSource source;
            source.name = std::string(random() % 5, 'a') + (random() % 2 == 0 ? "\"\n\u00e9" : ".") + std::to_string(i);
            std::size_t elements = 1;
            for (std::uint64_t rank = random() % 5; rank > 0; --rank) {
                source.shape.push_back(static_cast<std::int64_t>(random() % 6));
                elements *= static_cast<std::size_t>(source.shape.back());
            }
            auto& numbers = values.emplace_back(elements);
            for (float& number : numbers)
                number = std::bit_cast<float>(static_cast<std::uint32_t>(random()));
            source.values = numbers.data();
            sources.push_back(source);
        }
        const std::uint64_t sum = write_safetensors(path, sources, {{"made", "here"}});
        const SafetensorsFile file(path);
        CHECK(sum == checksum(file.bytes()));
        CHECK(file.metadata() == TensorMetadata{{"format", "pt"}, {"made", "here"}});
        REQUIRE(file.tensors().size() == count);
        for (std::size_t i = 0; i < count; ++i) {
            const TensorEntry* const entry = file.find(sources[i].name);
            REQUIRE(entry != nullptr);
            CHECK(entry->dtype == "F32");
            CHECK(entry->shape == sources[i].shape);
            REQUIRE(entry->bytes.size() == 4 * values[i].size());
            CHECK(std::equal(entry->bytes.begin(), entry->bytes.end(), std::as_bytes(std::span(values[i])).begin()));
        }
        CHECK(file.find("no such") == nullptr);
        CHECK(std::is_sorted(file.tensors().begin(), file.tensors().end(), [](const auto& a, const auto& b) {
            return a.bytes.data() != b.bytes.data() && a.name < b.name && a.bytes.data() < b.bytes.data();
        }));
    }
}

TEST_CASE("the bytes of a safetensors file are those of the reference writer") {
    const TemporaryDirectory directory;
    const float values[] = {1, 2};
    write_safetensors(directory / "tensors", std::vector<TensorSource>{{"b", {2}, values}, {"a", {}, values + 1}});
    const std::string header = R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},)"
                               R"("b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})";
    const std::string padded = header + std::string((8 - header.size() % 8) % 8, ' ');
    std::string expected = file_of(padded, 12);
    const float data[] = {2, 1, 2};
    std::memcpy(expected.data() + 8 + padded.size(), data, sizeof data);
    CHECK(read_file(directory / "tensors") == expected);
}

TEST_CASE("what a safetensors file cannot hold is not written") {
    const TemporaryDirectory directory;
    const fs::path path = directory / "tensors";
    const float value = 1;
    const auto write = [&](std::vector<TensorSource> tensors, TensorMetadata metadata = {}) {
        return problem_of([&] { write_safetensors(path, tensors, metadata); });
    };
    CHECK(contains(write({{"a", {1}, &value}, {"a", {1}, &value}}), "\"a\""));
    CHECK(contains(write({{"__metadata__", {1}, &value}}), "__metadata__"));
    CHECK(contains(write({{"\xff", {1}, &value}}), "UTF-8"));
    CHECK(contains(write({}, {{"a", "\xff"}}), "UTF-8"));
    CHECK_FALSE(fs::exists(path));
}

TEST_CASE("headers that break the format are refused with the reason") {
    const std::string two = tensor("F32", "[2]", "[0,8]");
    CHECK(problem_in("{}").empty());
    CHECK(problem_in("{\"a\":" + two + "}", 8).empty());

    CHECK(contains(problem_of([] { SafetensorsView view(bytes_of(""), "x"); }), "x: not a whole safetensors file"));
    CHECK(contains(problem_of([] { SafetensorsView view(bytes_of("1234567"), "x"); }), "shorter"));
    CHECK(contains(problem_of([] { SafetensorsView view(bytes_of(std::string(8, '\xff')), "x"); }), "bytes long"));
    CHECK(contains(problem_of([] { SafetensorsView view(bytes_of(file_of("{}", 0).substr(0, 9)), "x"); }),
                   "2 bytes long"));
    CHECK(contains(problem_in(""), "begin"));
    CHECK(contains(problem_in(" {}"), "begin"));
    CHECK(contains(problem_in("[]"), "begin"));
    CHECK(contains(problem_in("{"), "not JSON"));
    CHECK(contains(problem_in("{} x"), "not JSON"));
    CHECK(contains(problem_in(std::string("{}\0 x", 5)), "not JSON"));
    CHECK(contains(problem_in("{\"\xff\":" + two + "}", 8), "not JSON"));
    CHECK(contains(problem_in("{\"a\":" + std::string(100000, '[')), "nested"));
    CHECK(contains(problem_in(R"({"a":{"b":{"c":{}}}})"), "nested"));

    CHECK(contains(problem_in("{\"a\":" + two + ",\"a\":" + two + "}", 8), "\"a\" twice"));
    CHECK(contains(problem_in("{\"a\":" + two + ",\"\\u0061\":" + two + "}", 8), "\"a\" twice"));
    CHECK(contains(problem_in(R"({"a":{"dtype":"F32","dtype":"F32","shape":[],"data_offsets":[0,4]}})", 4), "twice"));
    CHECK(contains(problem_in(R"({"__metadata__":{},"__metadata__":{}})"), "twice"));
    CHECK(contains(problem_in(R"({"__metadata__":[]})"), "not an object"));
    CHECK(contains(problem_in(R"({"__metadata__":{"a":1}})"), "not a string"));

    CHECK(contains(problem_in(R"({"a":1})"), "tensor \"a\": not an object"));
    CHECK(contains(problem_in(R"({"a":{"dtype":"F32","shape":[]}})"), "data_offsets"));
    CHECK(contains(problem_in(R"({"a":{"dtype":"F32","shape":[],"offsets":[0,4]}})", 4), "data_offsets"));
    CHECK(contains(problem_in(R"({"a":{"dtype":"F32","shape":[],"data_offsets":[0,4],"b":1}})", 4), "keys beside"));
    CHECK(contains(problem_in(R"({"a":{"dtype":1,"shape":[],"data_offsets":[0,4]}})", 4), "dtype"));
    CHECK(contains(problem_in("{\"a\":" + tensor("F33", "[]", "[0,4]") + "}", 4), "unknown dtype"));
    for (const char* shape : {"1", "[-1]", "[1.0]", "[\"1\"]", "[null]", "[9223372036854775808]", "{}"}) {
        CAPTURE(shape);
        CHECK(contains(problem_in("{\"a\":" + tensor("F32", shape, "[0,4]") + "}", 4), "shape"));
    }
    for (const char* offsets : {"[]", "[0]", "[0,4,4]", "[0,4.0]", "[-4,0]", "{}", "4", "[0,18446744073709551616]"}) {
        CAPTURE(offsets);
        CHECK(contains(problem_in("{\"a\":" + tensor("F32", "[1]", offsets) + "}", 4), "data_offsets"));
    }
    // Sizes whose product wraps to what the offsets say.
    CHECK(contains(problem_in("{\"a\":" + tensor("F32", "[4611686018427387904,4]", "[0,0]") + "}"), "overflow"));
    CHECK(contains(problem_in("{\"a\":" + tensor("U8", "[4294967296,4294967296]", "[0,0]") + "}"), "overflow"));
    CHECK(contains(problem_in("{\"a\":" + tensor("F4", "[3]", "[0,1]") + "}", 1), "whole bytes"));

    CHECK(contains(problem_in("{\"a\":" + tensor("F32", "[1]", "[4,0]") + "}", 4), "do not span"));
    CHECK(contains(problem_in("{\"a\":" + tensor("F32", "[1]", "[0,8]") + "}", 8), "do not span"));
    CHECK(contains(problem_in("{\"a\":" + tensor("F32", "[1]", "[4,8]") + "}", 8), "hole"));
    CHECK(contains(problem_in("{\"a\":" + two + ",\"b\":" + tensor("F32", "[2]", "[4,12]") + "}", 12), "overlap"));
    CHECK(contains(problem_in("{\"a\":" + two + ",\"b\":" + two + "}", 8), "overlap"));
    CHECK(contains(problem_in("{\"a\":" + tensor("U8", "[18446744073709551615]", "[0,1]") + "}", 1), "shape"));
    CHECK(contains(problem_in("{\"a\":" + two + "}", 7), "beyond the file"));
    CHECK(contains(problem_in("{\"a\":" + two + "}", 9), "1 bytes behind"));
    CHECK(contains(problem_in("{}", 1), "behind the last tensor"));
}

TEST_CASE("every dtype of the format is known, in any order of tensors") {
    std::string header = "{";
    std::size_t end = 800;
    for (const auto& [name, bits] : std::vector<std::pair<std::string, std::size_t>>{
             {"BOOL", 8},        {"F4", 4},          {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"U8", 8},   {"I8", 8},
             {"F8_E5M2", 8},     {"F8_E4M3", 8},     {"F8_E8M0", 8}, {"I16", 16},    {"U16", 16}, {"F16", 16},
             {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"BF16", 16},   {"I32", 32},    {"U32", 32}, {"F32", 32},
             {"C64", 64},        {"F64", 64},        {"I64", 64},    {"U64", 64}}) {
        const std::size_t begin = end - bits; // eight elements
        header += "\"" + name +
                  "\":" + tensor(name, "[2,4]", "[" + std::to_string(begin) + "," + std::to_string(end) + "]") + ",";
        end = begin;
    }
    header += "\"none\":" + tensor("F32", "[0,3]", "[0,0]") +
              ",\"rest\":" + tensor("U8", "[" + std::to_string(end) + "]", "[0," + std::to_string(end) + "]") + "}";
    const std::string file = file_of(header, 800);
    const SafetensorsView view(bytes_of(file), "x");
    CHECK(view.tensors().size() == 24);
    CHECK(view.find("BF16")->type_text() == "BF16 [2, 4]");
    CHECK(view.find("none")->bytes.empty());
}

TEST_CASE("a damaged safetensors file is refused or read within its bounds") {
    const TemporaryDirectory directory;
    const float values[] = {1, 2, 3, 4, 5, 6};
    write_safetensors(directory / "tensors", std::vector<TensorSource>{{"a", {2, 2}, values}, {"b", {2}, values + 4}});
    const std::string whole = read_file(directory / "tensors");
    for (std::size_t size = 0; size < whole.size(); ++size) {
        // A buffer of its own size, so that a sanitizer sees any read beyond it.
        const std::vector<char> cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size));
        CHECK_THROWS_AS(SafetensorsView(std::as_bytes(std::span(cut)), "x"), IoError);
    }
    std::size_t read = 0;
    for (std::size_t bit = 0; bit < 8 * whole.size(); ++bit) {
        std::vector<char> damaged(whole.begin(), whole.end());
        damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << (bit % 8)));
        try {
            sum_of(SafetensorsView(std::as_bytes(std::span(damaged)), "x"));
            ++read;
        } catch (const IoError&) {}
    }
    CHECK(read >= 8 * sizeof values); // the format itself has no checksum

    std::mt19937_64 random(3);
    for (int turn = 0; turn < 3000; ++turn) {
        std::vector<char> damaged(whole.begin(), whole.end());
        for (std::uint64_t edits = 1 + random() % 4; edits > 0; --edits) {
            const auto at = static_cast<std::ptrdiff_t>(random() % damaged.size());
            if (random() % 3 == 0)
                damaged.erase(damaged.begin() + at);
            else
                damaged[static_cast<std::size_t>(at)] = "0123456789[]{},:\"-.e"[random() % 20];
        }
        try {
            sum_of(SafetensorsView(std::as_bytes(std::span(damaged)), "x"));
        } catch (const IoError&) {}
    }
}

TEST_CASE("a safetensors file is whole or as it was, whatever fails") {
    const TemporaryDirectory directory;
    const fs::path path = directory / "tensors";
    const float values[] = {1, 2, 3};
    const std::vector<TensorSource> old_tensors{{"old", {1}, values}};
    const std::vector<TensorSource> new_tensors{{"a", {2}, values}, {"b", {1}, values + 2}};
    const FaultCalls counter(-1, FaultCalls::Fault::error);
    write_safetensors(path, new_tensors, {}, counter);
    const std::string new_bytes = read_file(path);
    REQUIRE(counter.count() >= 7);
    for (int where = 0; where < counter.count(); ++where) {
        CAPTURE(where);
        write_safetensors(path, old_tensors);
        const std::string old_bytes = read_file(path);
        const FaultCalls calls(where, FaultCalls::Fault::error);
        const std::string problem = problem_of([&] { write_safetensors(path, new_tensors, {}, calls); });
        CHECK(contains(problem, "No space left on device"));
        const std::string now = read_file(path);
        CHECK((now == old_bytes || now == new_bytes));
        CHECK(std::distance(fs::directory_iterator(directory.path()), fs::directory_iterator()) == 1);
    }
}
