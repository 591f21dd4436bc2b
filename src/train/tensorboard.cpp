#include "ballast/train/tensorboard.h"

#include <array>
#include <bit>
#include <chrono>
#include <cstring>
#include <system_error>
#include <unistd.h>
#include <variant>

namespace ballast {

namespace fs = std::filesystem;

static_assert(std::endian::native == std::endian::little);

namespace {

constexpr auto kCrcTable = [] {
    constexpr std::uint32_t kReversedPolynomial = 0x82F63B78;
    std::array<std::uint32_t, 256> table{};
    for (std::uint32_t i = 0; i < 256; ++i) {
        std::uint32_t crc = i;
        for (int bit = 0; bit < 8; ++bit)
            crc = (crc >> 1U) ^ ((crc & 1U) != 0 ? kReversedPolynomial : 0);
        table[i] = crc;
    }
    return table;
}();

template <class Value>
std::string bytes_of(Value value) {
    std::string bytes(sizeof(Value), '\0');
    std::memcpy(bytes.data(), &value, sizeof(Value));
    return bytes;
}

std::uint32_t masked_crc(std::string_view bytes) { return std::rotr(crc32c(bytes), 15) + 0xA282EAD8U; }

// Fields of a protocol buffer (https://protobuf.dev/programming-guides/encoding).

std::string varint(std::uint64_t value) {
    std::string bytes;
    for (; value >= 128; value >>= 7U)
        bytes += static_cast<char>(value | 128U);
    return bytes + static_cast<char>(value);
}

enum class Wire : std::uint32_t { varint = 0, fixed64 = 1, length = 2, fixed32 = 5 };

std::string tag(std::uint32_t field, Wire wire) { return varint(field << 3U | static_cast<std::uint32_t>(wire)); }
std::string integer(std::uint32_t field, std::int64_t value) {
    return tag(field, Wire::varint) + varint(static_cast<std::uint64_t>(value));
}
std::string real64(std::uint32_t field, double value) { return tag(field, Wire::fixed64) + bytes_of(value); }
std::string real32(std::uint32_t field, double value) {
    return tag(field, Wire::fixed32) + bytes_of(static_cast<float>(value));
}
std::string message(std::uint32_t field, std::string_view value) {
    return tag(field, Wire::length) + varint(value.size()) + std::string(value);
}

// tensorboard/compat/proto/{event,summary}.proto
constexpr std::uint32_t kWallTime = 1, kStep = 2, kFileVersion = 3, kSummary = 5, kSessionLog = 7;
constexpr std::uint32_t kSummaryValue = 1, kValueTag = 1, kSimpleValue = 2, kSessionStatus = 1;
constexpr std::int64_t kSessionStart = 1;

/// An Event with the time of this moment.
std::string event_record(std::int64_t step, const std::string& what) {
    const std::chrono::duration<double> now = std::chrono::system_clock::now().time_since_epoch();
    return tfrecord(real64(kWallTime, now.count()) + integer(kStep, step) + what);
}

fs::path new_event_file(const fs::path& directory) {
    std::array<char, 256> host{};
    if (::gethostname(host.data(), host.size() - 1) != 0 || host[0] == '\0') host = {'h', 'o', 's', 't'};
    const auto seconds =
        std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
    const std::string time = std::to_string(seconds);
    const std::string start = "events.out.tfevents." + std::string(10 - std::min<std::size_t>(10, time.size()), '0') +
                              time + "." + host.data() + "." + std::to_string(::getpid()) + ".";
    for (int number = 0;; ++number) {
        fs::path path = directory / (start + std::to_string(number));
        std::error_code ignored;
        if (!fs::exists(path, ignored)) return path;
    }
}

} // namespace

std::uint32_t crc32c(std::string_view bytes) {
    std::uint32_t crc = ~0U;
    for (const char byte : bytes)
        crc = (crc >> 8U) ^ kCrcTable[(crc ^ static_cast<unsigned char>(byte)) & 0xFFU];
    return ~crc;
}

std::string tfrecord(std::string_view payload) {
    const std::string length = bytes_of(static_cast<std::uint64_t>(payload.size()));
    return length + bytes_of(masked_crc(length)) + std::string(payload) + bytes_of(masked_crc(payload));
}

TensorBoardSink::TensorBoardSink(const fs::path& directory, std::int64_t last_step, const FileCalls& calls)
    : file_(new_event_file(directory), calls) {
    file_.append(event_record(0, message(kFileVersion, "brain.Event:2")));
    file_.append(event_record(last_step + 1, message(kSessionLog, integer(kSessionStatus, kSessionStart))));
}

void TensorBoardSink::write(const StepRecord& record) {
    std::string values;
    const auto add = [&](std::string_view name, double value) {
        values += message(kSummaryValue, message(kValueTag, name) + real32(kSimpleValue, value));
    };
    for (const StepField& field : kStepFields) {
        if (const auto* number = std::get_if<double StepRecord::*>(&field.member)) add(field.name, record.**number);
        if (const auto* optional = std::get_if<std::optional<double> StepRecord::*>(&field.member))
            if (record.**optional) add(field.name, *(record.**optional));
    }
    file_.append(event_record(record.step, message(kSummary, values)));
}

} // namespace ballast
